// SPDX-License-Identifier: MIT
// Environments of launchers, and the coordinator over TCP: processes that come late, fail, leave or are killed, and strangers.

#include "pipesched/launch/tcp_coordinator.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <future>
#include <map>
#include <random>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/launch/environment.hpp"
#include "support/families.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

using environment = std::map<std::string, std::string>;

launch_environment read(const environment& e) {
  return read_launch_environment([&](const char* name) -> const char* {
    const auto at = e.find(name);
    return at == e.end() ? nullptr : at->second.c_str();
  });
}
std::string refusal(const environment& e) {
  return refusal_of([&] { read(e); });
}

// A socket, closed at the end of its scope.
class socket_handle {
 public:
  explicit socket_handle(int fd) : fd_(fd) {}
  socket_handle(socket_handle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  socket_handle& operator=(socket_handle&& other) noexcept { return std::swap(fd_, other.fd_), *this; }
  ~socket_handle() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

std::uint16_t free_port() {
  const socket_handle s(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof address;
  ::bind(s.get(), reinterpret_cast<sockaddr*>(&address), size);
  ::getsockname(s.get(), reinterpret_cast<sockaddr*>(&address), &size);
  return ntohs(address.sin_port);
}

// A job whose processes are threads; what each has thrown.
template <typename Body>
std::vector<std::string> run(std::uint32_t size, std::chrono::milliseconds limit, Body&& body) {
  std::promise<std::array<std::byte, 512>> told;
  const std::shared_future<std::array<std::byte, 512>> heard(told.get_future());
  std::vector<std::string> said(size);
  std::vector<std::jthread> threads;
  for (std::uint32_t r = 0; r < size; ++r)
    threads.emplace_back([&, r] {
      const auto broadcast = [&](std::span<std::byte> bytes) {
        std::array<std::byte, 512> all{};
        REQUIRE(bytes.size() <= all.size());
        if (r == 0) std::memcpy(all.data(), bytes.data(), bytes.size()), told.set_value(all);
        std::memcpy(bytes.data(), heard.get().data(), bytes.size());
      };
      try {
        tcp_coordinator job(r, size, broadcast, limit);
        body(r, job);
      } catch (const std::exception& e) {
        said[r] = e.what();
      }
    });
  threads.clear();
  return said;
}

}  // namespace

TEST_CASE("launch environment: every launcher, and what overrides it") {
  launch_environment e = read({});
  CHECK((e.rank == 0 && e.size == 1 && e.local_rank == 0 && e.address == "127.0.0.1" && e.port == 29500));
  CHECK(e.launcher == "none");

  environment torchrun = {{"RANK", "5"},
                          {"WORLD_SIZE", "16"},
                          {"LOCAL_RANK", "1"},
                          {"LOCAL_WORLD_SIZE", "4"},
                          {"MASTER_ADDR", "node7"},
                          {"MASTER_PORT", "29400"}};
  e = read(torchrun);
  CHECK((e.rank == 5 && e.size == 16 && e.local_rank == 1 && e.address == "node7" && e.port == 29400));
  CHECK(e.launcher == "torchrun");
  torchrun["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  CHECK(read(torchrun).port == 29401);

  environment mpirun = {
      {"OMPI_COMM_WORLD_RANK", "3"},       {"OMPI_COMM_WORLD_SIZE", "4"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "3"},
      {"OMPI_COMM_WORLD_LOCAL_SIZE", "4"}, {"SLURM_PROCID", "0"},  // of the batch script that ran it
      {"SLURM_STEP_NUM_TASKS", "1"}};
  e = read(mpirun);
  CHECK((e.rank == 3 && e.size == 4 && e.local_rank == 3 && e.address == "127.0.0.1"));
  CHECK(e.launcher == "mpirun");
  mpirun["OMPI_COMM_WORLD_LOCAL_RANK"] = "1", mpirun["OMPI_COMM_WORLD_LOCAL_SIZE"] = "2";
  CHECK(refusal(mpirun) ==
        "MASTER_ADDR, the host of process 0, is needed by 4 processes of which 2 are known to be here");
  mpirun["MASTER_ADDR"] = "10.0.0.1";
  CHECK(read(mpirun).address == "10.0.0.1");

  e = read({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "2"}});
  CHECK((e.rank == 1 && e.size == 2 && e.local_rank == 1 && e.launcher == "mpiexec"));

  const environment srun = {{"SLURM_PROCID", "9"},
                            {"SLURM_STEP_NUM_TASKS", "16"},
                            {"SLURM_LOCALID", "1"},
                            {"SLURM_STEP_NODELIST", "gpu[03-04,07]"},
                            {"SLURM_JOB_ID", "123456789"}};
  e = read(srun);
  CHECK((e.rank == 9 && e.size == 16 && e.local_rank == 1 && e.address == "gpu03" && e.port == 26789));
  CHECK(e.launcher == "srun");
  CHECK(read({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}}).size == 1);  // a batch script, not a step
  environment pmi2 = srun;                                                // srun --mpi=pmi2
  pmi2["PMI_RANK"] = "9", pmi2["PMI_SIZE"] = "16";
  CHECK((read(pmi2).launcher == "srun" && read(pmi2).rank == 9));
  CHECK(read({{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}, {"MASTER_ADDR", "a"}}).launcher == "mpiexec");

  CHECK(e.token == "123456789.");
  CHECK((read(torchrun).token.empty() && read(torchrun).listen.empty()));
  torchrun["TORCHELASTIC_RUN_ID"] = "job 7";
  CHECK(read(torchrun).token == "job 7");
  torchrun["PIPESCHED_TOKEN"] = "secret", torchrun["PIPESCHED_LISTEN"] = "0.0.0.0";
  CHECK((read(torchrun).token == "secret" && read(torchrun).listen == "0.0.0.0"));
  torchrun["PIPESCHED_TOKEN"] = std::string(257, 'x');
  CHECK(refusal(torchrun) == "PIPESCHED_TOKEN has at most 256 characters; got 257");
  torchrun.erase("PIPESCHED_TOKEN"), torchrun["TORCHELASTIC_RUN_ID"] = std::string(300, 'x');
  CHECK(refusal(torchrun) == "TORCHELASTIC_RUN_ID has at most 256 characters; got 300");

  for (const auto& [list, first] : std::vector<std::pair<std::string, std::string>>{{"node7", "node7"},
                                                                                    {"a1,b2", "a1"},
                                                                                    {"n[12]", "n12"},
                                                                                    {"n[1,3]-ib,m2", "n1-ib"},
                                                                                    {"x,n[1-2]", "x"},
                                                                                    {"n[01-12]", "n01"},
                                                                                    {"n[3", "n3"},
                                                                                    {"r[1-2]n[3-4],x", "r1n3"},
                                                                                    {"n[", "n"},
                                                                                    {"[[", ""},
                                                                                    {"[", ""},
                                                                                    {"", ""},
                                                                                    {"]a", "a"},
                                                                                    {"n[[1-2]]x", "n1x"},
                                                                                    {"r[4]n[3", "r4n3"}})
    CHECK(detail::first_host(list) == first);
}

TEST_CASE("launch environment: what cannot be is refused") {
  CHECK(refusal({{"RANK", "4"}, {"WORLD_SIZE", "4"}}) == "RANK is below WORLD_SIZE, which is 4; got 4");
  CHECK(refusal({{"RANK", "4"}, {"WORLD_SIZE", "8"}, {"LOCAL_RANK", "4"}, {"LOCAL_WORLD_SIZE", "4"}}) ==
        "LOCAL_RANK is below LOCAL_WORLD_SIZE, which is 4; got 4");
  CHECK(refusal({{"RANK", "3"}}) == "RANK is set, and WORLD_SIZE is not; a launcher sets both");
  CHECK(refusal({{"PMI_SIZE", "8"}, {"MASTER_ADDR", "a"}}) ==
        "PMI_SIZE is set, and PMI_RANK is not; a launcher sets both");
  CHECK(refusal({{"RANK", "-1"}, {"WORLD_SIZE", "4"}}) == "RANK is a number from 0 to 1000000; got \"-1\"");
  CHECK(refusal({{"RANK", "0"}, {"WORLD_SIZE", "4x"}}) == "WORLD_SIZE is a number from 0 to 1000000; got \"4x\"");
  CHECK(refusal({{"RANK", "0"}, {"WORLD_SIZE", ""}}) == "WORLD_SIZE is a number from 0 to 1000000; got \"\"");
  CHECK(refusal({{"MASTER_PORT", "65535"}, {"TORCHELASTIC_USE_AGENT_STORE", "True"}}) ==
        "MASTER_PORT is at most 65534 where the launcher listens there itself; got 65535");
  CHECK(refusal({{"MASTER_PORT", "0"}, {"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}) ==
        "MASTER_PORT is from 1 to 65535 where there is more than one process; got 0");
  CHECK(read({{"MASTER_PORT", "0"}}).port == 0);
  CHECK(refusal({{"MASTER_ADDR", ""}}) ==
        "MASTER_ADDR or SLURM_STEP_NODELIST has the host of process 0; got an empty name");
  CHECK(refusal({{"MASTER_PORT", "70000"}}) == "MASTER_PORT is a number from 0 to 65535; got \"70000\"");
  CHECK(refusal({{"RANK", "0"}, {"WORLD_SIZE", "2"}}) ==
        "MASTER_ADDR, the host of process 0, is needed by 2 processes of which 1 is known to be here");
}

TEST_CASE("tcp coordinator: all receive what process 0 gave, once all have come, and every parcel its receiver") {
  for (const std::uint32_t size : {1u, 2u, 7u}) {
    std::atomic<std::uint32_t> came = 0;
    const auto said = run(size, std::chrono::seconds(20), [&](std::uint32_t r, tcp_coordinator& job) {
      CHECK(job.rank() == r);
      CHECK(job.size() == size);
      for (std::uint32_t round = 0; round < 20; ++round) {
        if (r == round % size) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        ++came;
        const std::string text = std::string(std::size_t{round} * 1000, 'x') + std::to_string(r);
        CHECK(job.broadcast(text) == std::string(std::size_t{round} * 1000, 'x') + "0");
        CHECK(came >= (round + 1) * size);
        CHECK(!job.failure());
        const auto all = gather(job, detail::concat({"of ", r, " in round ", round}));
        REQUIRE(all.size() == (r == 0 ? size : 0));
        for (std::uint32_t i = 0; i < all.size(); ++i) CHECK(all[i] == detail::concat({"of ", i, " in round ", round}));
      }
      std::vector<parcel> mine, expected;  // two to the next process, one to each that is below this one
      for (const char* text : {"first", ""}) mine.push_back({(r + 1) % size, text});
      for (std::uint32_t to = 0; to < r; ++to) mine.push_back({to, detail::concat({r, " to ", to})});
      for (std::uint32_t from = 0; from < size; ++from) {
        if ((from + 1) % size == r)
          for (const char* text : {"first", ""}) expected.push_back({from, text});
        if (from > r) expected.push_back({from, detail::concat({from, " to ", r})});
      }
      CHECK(job.exchange(mine) == expected);
      CHECK(job.exchange({}).empty());
      const parcel to_no_one{size, ""};
      CHECK(refusal_of([&] {
              job.exchange({&to_no_one, 1});
            }) == detail::concat({"a job of ", detail::count_text(size, "process"), " has no process ", size}));
      const auto large = gather(job, std::string(3'000'000, static_cast<char>('a' + r)));
      for (std::uint32_t i = 0; i < large.size(); ++i)
        CHECK(large[i] == std::string(3'000'000, static_cast<char>('a' + i)));
    });
    CHECK(said == std::vector<std::string>(size));
  }
}

TEST_CASE("tcp coordinator: all hear of the first failure, with the positions of those that stall") {
  std::vector<std::string> heard(4);
  const auto said = run(4, std::chrono::seconds(20), [&](std::uint32_t r, tcp_coordinator& job) {
    job.broadcast("");
    if (r == 1) job.report_position("rank 1 at 1F2, which waits for activation 0F2 from rank 0", progress_state::waits);
    if (r == 0) job.report_position("rank 0 at 0F7", progress_state::stalled);
    if (r == 0) job.report_position("rank 0 at 0F8", progress_state::between_steps);
    job.broadcast("");
    if (r == 2) heard[2] = job.report_failure("rank 2 at 2F0: it is too warm");
    while (!job.failure()) std::this_thread::yield();
    if (r == 3) CHECK(job.report_failure("rank 3 at its end: too late") == *job.failure());
    heard[r] = *job.failure();
    CHECK_THROWS_AS(job.broadcast(""), pipeline_aborted);
  });
  CHECK(said == std::vector<std::string>(4));
  for (const std::string& text : heard)
    CHECK(text == "rank 2 at 2F0: it is too warm\nrank 1 at 1F2, which waits for activation 0F2 from rank 0");
}

TEST_CASE("tcp coordinator: processes that do not come, come twice, or leave while others wait") {
  const std::uint16_t port = free_port();
  const auto limit = std::chrono::seconds(2);
  {
    tcp_coordinator zero({.rank = 0, .size = 3, .port = port}, limit), one({.rank = 1, .size = 3, .port = port}, limit);
    std::jthread other([&] { CHECK_THROWS_AS(one.broadcast(""), pipeline_aborted); });
    std::string text;
    try {
      zero.broadcast("");
    } catch (const pipeline_aborted& e) {
      text = e.what();
    }
    CHECK(text.find("and not all came in time\nnot there yet: process 2") != std::string::npos);
  }
  {
    tcp_coordinator zero({.rank = 0, .size = 2, .port = port}, limit), one({.rank = 1, .size = 2, .port = port}, limit),
        twice({.rank = 1, .size = 2, .port = port}, limit), another({.rank = 2, .size = 3, .port = port}, limit),
        stranger({.rank = 1, .size = 2, .port = port, .token = "of another job"}, limit);
    CHECK(twice.report_failure("") == "process 1 of 2 has joined a job of 2, which has it already");
    CHECK(another.report_failure("") == "process 2 of 3 has joined a job of 2");
    CHECK(stranger.report_failure("") ==
          "process 0 has another token than process 1: PIPESCHED_TOKEN is the same for all of a job");
    CHECK(!zero.failure());
    CHECK(!one.failure());
  }
  const auto said = run(3, std::chrono::seconds(20), [](std::uint32_t r, tcp_coordinator& job) {
    job.broadcast("");
    if (r != 1) job.broadcast("");
  });
  CHECK(said[0] == "aborted: process 1 has left, and others wait for it");
  CHECK(said[2] == said[0]);

  CHECK(refusal_of([&] { tcp_coordinator({.rank = 0, .size = 2, .address = ""}, limit); }) ==
        "a job of 2 processes needs the address and port of process 0; got \"\" and port 29500");
  CHECK(refusal_of([&] { tcp_coordinator({.rank = 1, .size = 2, .port = 0}, limit); }) ==
        "a job of 2 processes needs the address and port of process 0; got \"127.0.0.1\" and port 0");
  CHECK(refusal_of([&] { tcp_coordinator({.rank = 0, .size = 2, .port = port, .token = std::string(300, 'x')}); }) ==
        "the job's token has at most 256 characters; got 300");
  CHECK(refusal_of([&] { tcp_coordinator({.rank = 1, .size = 2, .port = port}, limit); }) ==
        detail::concat({"process 1 cannot reach process 0 at 127.0.0.1 port ", port, " within the time limit"}));
  const tcp_coordinator holder({.rank = 0, .size = 2, .port = port}, limit);
  CHECK(refusal_of([&] { tcp_coordinator({.rank = 0, .size = 2, .port = port}, limit); }) ==
        detail::concat({"process 0 cannot listen at 127.0.0.1 port ", port,
                        ": Address already in use; MASTER_ADDR is an address of its host, PIPESCHED_LISTEN another one "
                        "to listen on, "
                        "MASTER_PORT a free port"}));
}

TEST_CASE("tcp coordinator: parcels that are too much for one process in sum fail the job, with the limit") {
  detail::job job(2);
  std::vector<detail::frame> sent[2];
  for (std::uint32_t r = 0; r < 2; ++r)
    job.join(r, 2, [&sent, r](detail::frame f) { sent[r].push_back(std::move(f)); });
  for (std::uint32_t r = 0; r < 2; ++r) {
    const parcel half{1, std::string(detail::max_frame / 2, 'x')};
    CHECK(job.take(r, {detail::frame::exchange, detail::pack({&half, 1})}));
  }
  for (const auto& frames : sent) {
    REQUIRE(frames.size() == 1);
    CHECK(frames[0].is == detail::frame::failure);
    CHECK(frames[0].text == "processes receive at most 268435456 bytes in an exchange; more are for process 1");
  }
}

TEST_CASE("tcp coordinator: processes hear when one was last between steps, and not in an exchange itself") {
  using enum progress_state;
  detail::job job(3);
  std::vector<std::string> failures, pauses;
  for (std::uint32_t r = 0; r < 3; ++r)
    job.join(r, 3, [&](const detail::frame& f) {
      if (f.is == detail::frame::failure) failures.push_back(f.text);
      if (f.is == detail::frame::pause) pauses.push_back(f.text);
    });
  const auto reports = [&](std::uint32_t r, progress_state state) {
    CHECK(job.take(r, {detail::frame::position, detail::pack(detail::concat({"rank ", r}), state)}));
  };
  const auto last_pause = [&] {
    pauses.clear();
    CHECK(job.take(2, {detail::frame::pause, ""}));
    REQUIRE(pauses.size() == 1);
    return pauses[0];
  };
  const auto sleep = [] { std::this_thread::sleep_for(std::chrono::milliseconds(20)); };
  CHECK(last_pause() == "");
  reports(0, between_steps), reports(1, between_steps);
  sleep();
  CHECK(last_pause() == "0");
  CHECK(job.take(0, {detail::frame::exchange, ""}));
  reports(2, stalled);
  CHECK(pauses.back() == "0");  // by process 1
  reports(1, moves);
  sleep();
  CHECK(std::stoi(last_pause()) >= 20);  // process 0 waits in the exchange
  CHECK(failures.empty());
  reports(2, stalled);
  CHECK(failures == std::vector<std::string>(3, "rank 2: nothing moved within the time limit\nrank 2"));
}

TEST_CASE("tcp coordinator: collective calls wait longer than the limit for a process between steps") {
  const auto said = run(3, std::chrono::milliseconds(1'000), [](std::uint32_t r, tcp_coordinator& job) {
    job.broadcast("");
    for (const int pause : {2'000, 900})
      if (r == 1) {
        job.report_position("rank 1 between its steps", progress_state::between_steps);
        std::this_thread::sleep_for(std::chrono::milliseconds(pause));
        job.report_position("rank 1 at 1F0", progress_state::moves);
        std::this_thread::sleep_for(std::chrono::milliseconds(500));
        CHECK(job.broadcast("") == "0");
      } else {
        CHECK(job.broadcast(std::to_string(r)) == "0");
      }
  });
  CHECK(said == std::vector<std::string>(3));
  const auto late = run(3, std::chrono::milliseconds(500), [](std::uint32_t r, tcp_coordinator& job) {
    job.broadcast("");
    if (r == 1) {
      job.report_position("rank 1 between its steps", progress_state::between_steps);
      std::this_thread::sleep_for(std::chrono::milliseconds(1'000));
      job.report_position("rank 1 at 1F0", progress_state::moves);
      while (!job.failure()) std::this_thread::yield();
    }
    job.broadcast("");
  });
  for (const std::string& text : late)
    CHECK(text.find(" waits for the others, and not all came in time") != std::string::npos);
}

TEST_CASE("tcp coordinator: a process that is alone listens on no port, whether or not another program does") {
  const std::uint16_t port = free_port();
  tcp_coordinator first({.rank = 0, .size = 1, .port = port}), second({.rank = 0, .size = 1, .port = port});
  CHECK(first.broadcast("a") == "a");
  CHECK(gather(second, "b") == std::vector<std::string>{"b"});
  const socket_handle s(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET, address.sin_port = htons(port), address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CHECK(::bind(s.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
}

TEST_CASE("tcp coordinator: a host name that is unknown is reported as such, and a host need not know its own") {
  const std::uint16_t port = free_port();
  const auto limit = std::chrono::milliseconds(300);
  const std::string said = refusal_of(
      [&] { tcp_coordinator({.rank = 1, .size = 2, .address = "no-such-host.invalid", .port = port}, limit); });
  CAPTURE(said);  // with the resolver's own words: a machine without a network has others
  CHECK(said.find("process 1 does not know the host name \"no-such-host.invalid\" of process 0 (") == 0);
  CHECK(said.find("); MASTER_ADDR is the name or address of its host") != std::string::npos);
  CHECK(said.find("time limit") == std::string::npos);
  CHECK(refusal_of([&] { tcp_coordinator({.rank = 2, .size = 2, .port = port}, limit); }) ==
        "a job of 2 processes has no process 2");
  CHECK(refusal_of([&] { tcp_coordinator({.rank = 1, .size = 2, .port = port}, std::chrono::seconds(0)); }) ==
        "a time limit is above 0 and at most 1e9 seconds; got 0");

  const pid_t child = ::fork();
  if (child == 0) {  // a process with a host name of its own, which is in no table
    constexpr std::string_view own = "a-name-in-no-table";
    if (::unshare(CLONE_NEWUTS) != 0 && ::unshare(CLONE_NEWUSER | CLONE_NEWUTS) != 0) ::_exit(77);
    if (::sethostname(own.data(), own.size()) != 0) ::_exit(77);
    const auto ends = run(3, std::chrono::seconds(20), [](std::uint32_t, tcp_coordinator& job) { job.broadcast(""); });
    for (const std::string& text : ends) std::fputs(text.c_str(), stderr);
    ::_exit(ends == std::vector<std::string>(3) ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77)
    MESSAGE("skipped: no host name of its own may be set here");
  else
    CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("tcp coordinator: a process that leaves with an exception, or while others gather, is reported") {
  const auto thrown = run(3, std::chrono::seconds(20), [](std::uint32_t r, tcp_coordinator& job) {
    job.broadcast("");
    if (r == 2) throw std::domain_error("no memory");
    job.broadcast("");
  });
  CHECK(thrown[2] == "no memory");
  CHECK(thrown[0] == "aborted: process 2 left with an exception");
  CHECK(thrown[1] == thrown[0]);
  const auto left = run(3, std::chrono::seconds(20), [](std::uint32_t r, tcp_coordinator& job) {
    job.broadcast("");
    if (r != 1) gather(job, "mine");
  });
  CHECK(left[0] == "aborted: process 1 has left, and others wait for it");
}

TEST_CASE("tcp coordinator: signals, and a process 0 that does not answer") {
  // Signals that interrupt calls, all the time.
  struct sigaction ignore {};
  ignore.sa_handler = [](int) {};  // and no SA_RESTART
  struct sigaction before {};
  ::sigaction(SIGUSR1, &ignore, &before);
  const pthread_t self = ::pthread_self();
  {
    const std::uint16_t port = free_port();
    tcp_coordinator zero({.rank = 0, .size = 2, .port = port}), one({.rank = 1, .size = 2, .port = port});
    std::jthread other([&] {
      for (int i = 0; i < 5; ++i) CHECK(gather(zero, "zero")[1] == std::string(20'000'000, 'x'));
    });
    std::jthread signals([&](const std::stop_token& stop) {
      while (!stop.stop_requested()) ::pthread_kill(self, SIGUSR1), std::this_thread::yield();
    });
    for (int i = 0; i < 5; ++i) gather(one, std::string(20'000'000, 'x'));
    other.join();
    CHECK(!zero.failure());
  }
  ::sigaction(SIGUSR1, &before, nullptr);

  // A listener that takes a connection and reads nothing.
  const socket_handle mute(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof address;
  REQUIRE(::bind(mute.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
  REQUIRE(::listen(mute.get(), 1) == 0);
  ::getsockname(mute.get(), reinterpret_cast<sockaddr*>(&address), &size);
  const std::uint16_t deaf = ntohs(address.sin_port);
  const auto start = std::chrono::steady_clock::now();
  {
    tcp_coordinator one({.rank = 1, .size = 2, .port = deaf}, std::chrono::milliseconds(300));
    std::jthread asks([&] {  // never waits, whatever else is in progress
      for (int i = 0; i < 100; ++i) {
        const auto asked = std::chrono::steady_clock::now();
        static_cast<void>(one.failure());
        CHECK(std::chrono::steady_clock::now() - asked < std::chrono::seconds(2));
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    });
    CHECK_THROWS_AS(gather(one, std::string(50'000'000, 'x')), pipeline_aborted);
  }
  // More connections than it takes: they are not answered at all.
  std::vector<socket_handle> waiting;
  for (int i = 0; i < 8; ++i) {
    waiting.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ::connect(waiting.back().get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  }
  CHECK(refusal_of([&] {
          tcp_coordinator({.rank = 1, .size = 2, .port = deaf}, std::chrono::milliseconds(300));
        }).find("process 1 cannot reach process 0 at 127.0.0.1 port ") == 0);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::seconds(20));
}

TEST_CASE("tcp coordinator: all hear at once of a process that is killed, whichever it is") {
  for (const std::uint32_t killed : {0u, 1u, 2u}) {
    const std::uint16_t port = free_port();
    std::array<int, 2> out{};
    REQUIRE(::pipe(out.data()) == 0);
    std::array<pid_t, 3> children{};
    for (std::uint32_t r = 0; r < 3; ++r) {
      children[r] = ::fork();
      if (children[r] != 0) continue;
      try {
        tcp_coordinator job({.rank = r, .size = 3, .port = port}, std::chrono::seconds(20));
        job.report_position(detail::concat({"rank ", r, " at ", r, "F3"}), progress_state::moves);
        job.broadcast("");
        try {  // process 0 passes this when all have come out of broadcast()
          if (killed == 0) gather(job, "");
        } catch (const pipeline_aborted&) {  // it was killed first
        }
        if (r == killed) ::kill(::getpid(), SIGKILL);
        for (int i = 0; !job.failure() && i < 20'000; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
        const std::string text = *job.failure() + "\n";
        if (::write(out[1], text.data(), text.size()) < 0) ::_exit(2);
      } catch (...) {
        ::_exit(1);
      }
      ::_exit(0);
    }
    ::close(out[1]);
    for (std::uint32_t r = 0; r < 3; ++r) {
      int status = 0;
      ::waitpid(children[r], &status, 0);
      CHECK((r == killed ? WIFSIGNALED(status) : WIFEXITED(status) && WEXITSTATUS(status) == 0));
    }
    std::array<char, 1000> text{};
    CHECK(::read(out[0], text.data(), text.size()) > 0);
    ::close(out[0]);
    const std::string line =
        killed == 0
            ? "process 0 is gone\n"
            : detail::concat({"process ", killed, " is gone, last seen as rank ", killed, " at ", killed, "F3\n"});
    CHECK(std::string(text.data()) == line + line);
  }
}

TEST_CASE("tcp coordinator: strangers who say anything do not disturb a job") {
  const std::uint16_t port = free_port();
  tcp_coordinator zero({.rank = 0, .size = 2, .port = port}), one({.rank = 1, .size = 2, .port = port});
  std::mt19937_64 random(3);
  std::vector<socket_handle> strangers;
  for (int i = 0; i < 200; ++i) {
    socket_handle s(::socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET, address.sin_port = htons(port), address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    REQUIRE(::connect(s.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    std::string bytes(random() % 40, 0);
    for (char& c : bytes) c = static_cast<char>(random());
    if (i % 4 == 0) bytes = detail::wire_of(detail::frame::greeting, bytes);
    if (i % 4 == 1) bytes = detail::wire_of(detail::frame::greeting, "pipesched " + bytes);
    if (i % 4 == 2) bytes = detail::wire_of(static_cast<detail::frame::kind>(random()), bytes);
    ::send(s.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (i % 3 != 0) strangers.push_back(std::move(s));
  }
  std::jthread other([&] { CHECK(one.broadcast("x") == "y"); });
  CHECK(zero.broadcast("y") == "y");
  other.join();
  CHECK(!zero.failure());
  CHECK(!one.failure());
}
