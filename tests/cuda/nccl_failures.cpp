// SPDX-License-Identifier: MIT
// One rank of a job that fails over the stand-in for NCCL, as a launcher starts it: nccl_failures SORT SEED FILE. The seed
// draws the program and the rank, op and step that fail. Each rank that ends by itself writes its report into FILE.<rank>, with
// the time since the failure, which the rank that fails writes into FILE.failed.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/device/nccl.hpp"
#include "pipesched/device/side_stream.hpp"
#include "pipesched/execute/run.hpp"
#include "pipesched/launch/environment.hpp"
#include "pipesched/launch/tcp_coordinator.hpp"
#include "support/place_to_fail.hpp"
#include "support/stream_trainer.hpp"
#include "support/tanh_model.hpp"

void on_host_put(cudaStream_t s, std::function<bool()> ready, std::function<void()> work);
extern std::atomic<bool> on_host_aborts_hang;

using namespace pipesched;
using namespace pipesched::tests;

namespace {

struct host_device {
  using stream = cudaStream_t;
  using range = std::pair<const void*, std::size_t>;
  std::atomic<bool> hangs = false;  // no kernel that is put from now on ends

  void kernel(stream s, const std::vector<range>&, const std::vector<range>&, std::function<void()> work) {
    on_host_put(
        s, [never = hangs.load()] { return !never; }, std::move(work));
  }
};

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// The end of this rank, with its report.
class reporter {
 public:
  reporter(std::string file, std::uint32_t rank) : file_(std::move(file)), rank_(rank) {}
  void fail() const { std::ofstream(file_ + ".failed") << std::to_string(now()) << "\n"; }
  void end(const std::string& text) const {
    double failed = 0;
    std::ifstream(file_ + ".failed") >> failed;
    std::ofstream(detail::concat({file_, ".", rank_})) << "took " << now() - failed << " s: " << text << "\n";
  }

 private:
  std::string file_;
  std::uint32_t rank_;
};

int run_rank(const std::string& sort, std::uint64_t seed, const std::string& file) {
  using std::chrono::milliseconds;
  const launch_environment where = read_launch_environment();
  std::mt19937_64 random(seed);
  const place_to_fail bad(any_program(random, where.size), random);
  const std::uint64_t step = random() % 3;
  const reporter report(file, where.rank);
  const int device = cuda::pick_device(where);
  cudaStream_t stream{};
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);

  small_model::trainer on_host(bad.p, where.rank);
  host_device on_device;
  side_stream<cuda::runtime> side({}, device);
  stream_trainer<host_device, side_stream<cuda::runtime>> trainer{&on_host, &on_device, stream, &side, {}};
  if (where.rank == bad.rank)
    trainer.fails = [&, left = step](op o) mutable {
      if (o != bad.at || left-- != 0) return;
      report.fail();
      if (sort == "dies") std::raise(SIGKILL);
      if (sort == "abort_hangs") on_host_aborts_hang = true;
      if (sort == "throws" || sort == "abort_hangs") throw std::domain_error("not a number");
      if (sort == "kernel_hangs") on_device.hangs = true;
      while (sort == "stalls") std::this_thread::sleep_for(milliseconds(10));
    };
  try {
    tcp_coordinator job(where, std::chrono::seconds(30));
    nccl::transport transport(
        {device, stream}, job,
        {.time_limit = sort == "stalls" || sort == "kernel_hangs" ? milliseconds(1000) : milliseconds(20000),
         .start_limit = std::chrono::seconds(30),
         .abort_limit = milliseconds(500),
         .last_resort =
             [&](const std::string& text) {
               report.end("ends the process: " + text);
               std::_Exit(5);
             }},
        nullptr);
    run(bad.p, transport.rank(), trainer, transport, {.steps = step + 2});
  } catch (const std::exception& e) {
    report.end(e.what());
    std::_Exit(4);  // a kernel that never ends would keep the stand-in's streams
  }
  report.end("has not failed");
  std::_Exit(0);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4) return run_rank(argv[1], std::stoull(argv[2]), argv[3]);
  std::fputs("nccl_failures throws|dies|stalls|kernel_hangs|abort_hangs SEED FILE\n", stderr);
  return 2;
}
