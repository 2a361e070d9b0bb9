// SPDX-License-Identifier: MIT
// A stand-in for NCCL between processes, beside on_host.cpp: communicators of two ranks, whose messages and connections are
// files in a folder. As in NCCL:
//
//   * A communicator of an id is non-blocking here: its calls return while they are in progress, and its state says when they
//     have ended. A split returns at once, and its communicator is there only when the state says so; one that is aborted leaves
//     a communicator, too.
//   * A blocking communicator sends messages. Its first message waits in the call until the other rank has called, too, or until
//     another thread aborts the communicator; it cannot be captured.
//   * A send ends only when its receive has reached the front of its stream.
//   * An abort waits until the calls and messages of its communicator have ended, and graphs that hold some are destroyed.
//
// A call that NCCL forbids is refused. The end of the program: a communicator that was freed, two calls at a time for one
// communicator (unless one is the abort), and a close while a graph holds messages, which would wait for ever in NCCL.
//
// The process whose RANK is ON_HOST_KILLED is killed in its first message; that of ON_HOST_STALLED does not connect it.

#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <thread>

extern std::atomic<int> on_host_graphs;
bool on_host_captures();
bool on_host_has_device();
void on_host_work();
void on_host_put(cudaStream_t s, std::function<bool()> ready, std::function<void()> work);

std::atomic<bool> on_host_aborts_hang{false};  // of tests: no abort returns

namespace fs = std::filesystem;

struct ncclComm {
  std::string base{};  // of its files
  int rank = -1;
  bool blocking = false;

  std::size_t messages = 0;
  std::atomic<bool> captured{false}, splits{false}, ends{false}, aborted{false}, failed{false}, freed{false};
  std::atomic<int> calls{0}, in_progress{0};  // in_progress: messages
};

namespace {

void write(const std::string& name, const std::string& text) {
  std::ofstream(name + ".part", std::ios::binary) << text;
  fs::rename(name + ".part", name);
}
std::string read(const std::string& name) {
  std::ifstream in(name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
[[noreturn]] void die(const char* why) {
  std::fprintf(stderr, "the stand-in for NCCL: %s\n", why);
  std::abort();
}

// NCCL makes a context on device 0 for a thread without a device.
void require_device() {
  if (!on_host_has_device()) die("a thread that has selected no device");
}

// A call of a communicator.
class call {
 public:
  explicit call(ncclComm& c) : c_(c) {
    if (c.freed) die("a communicator that was freed");
    if (c.calls++ > 0) die("two calls at a time");
  }
  call(const call&) = delete;
  call& operator=(const call&) = delete;
  ~call() { --c_.calls; }

 private:
  ncclComm& c_;
};

// The file by which this rank, or the other one, shows that it has reached a point.
std::string at(const ncclComm& c, const char* point, bool own) {
  return c.base + "." + point + "." + std::to_string(own ? c.rank : 1 - c.rank);
}
void arrive(const ncclComm& c, const char* point, const std::string& text = "") { write(at(c, point, true), text); }
bool other_is_at(const ncclComm& c, const char* point) { return fs::exists(at(c, point, false)); }
// False if the communicator is aborted before the other rank arrives.
bool meet(const ncclComm& c, const char* point) {
  while (!other_is_at(c, point) && !c.aborted) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return !c.aborted;
}

// In a thread: until both ranks have split, and then a little longer.
void split(ncclComm& parent, int key, ncclComm_t* made) {
  const bool met = meet(parent, "split");
  const int other = met ? std::stoi(read(at(parent, "split", false))) : 0;
  auto* const child = new ncclComm{.base = parent.base + ".child", .rank = other < key, .blocking = true};
  child->failed = !met;
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  __atomic_store_n(made, child, __ATOMIC_RELEASE);
  parent.splits = false;
}

// NCCL compares the limits before it fills in defaults, and an unset one is INT_MIN.
bool takes(const ncclConfig_t& config, int blocking) {
  return config.blocking == blocking && config.minCTAs <= config.maxCTAs;
}

// True if a variable names this process.
bool named_by(const char* variable) {
  const char *const name = std::getenv(variable), *const rank = std::getenv("RANK");
  return name != nullptr && rank != nullptr && std::strcmp(name, rank) == 0;
}

ncclResult_t message(ncclComm* c, bool sends, std::byte* bytes, std::size_t size, int peer, cudaStream_t s) {
  const call one(*c);
  if (!c->blocking || c->aborted || c->ends || peer != 1 - c->rank) return ncclInvalidUsage;
  if (c->messages == 0) {
    if (on_host_captures()) return ncclInvalidUsage;
    if (named_by("ON_HOST_KILLED")) std::raise(SIGKILL);
    if (!named_by("ON_HOST_STALLED")) arrive(*c, "connect");
    if (!meet(*c, named_by("ON_HOST_STALLED") ? "nothing" : "connect")) return ncclRemoteError;
  }
  const std::string name = c->base + ".message" + std::to_string(c->messages++), want = name + ".want";
  const bool counted = !on_host_captures();
  counted ? static_cast<void>(++c->in_progress) : c->captured.store(true);
  const auto end = [=] { c->in_progress -= counted; };
  if (sends) {
    on_host_put(
        s, [=] { return c->aborted || fs::exists(want); },
        [=] {
          if (!c->aborted) write(name, {reinterpret_cast<const char*>(bytes), size});
          end();
        });
    return ncclSuccess;
  }
  on_host_put(
      s,
      [=] {
        if (!c->aborted && !fs::exists(want)) write(want, "");
        return c->aborted || fs::exists(name);
      },
      [=] {
        if (!c->aborted) {
          const std::string received = read(name);
          if (received.size() != size) c->failed = true;
          std::memcpy(bytes, received.data(), std::min(size, received.size()));
          fs::remove(want), fs::remove(name);
        }
        end();
      });
  return ncclSuccess;
}

}  // namespace

extern "C" {

const char* ncclGetErrorString(ncclResult_t) { return "refused by the stand-in"; }
const char* ncclGetLastError(ncclComm_t) { return ""; }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  std::string folder = (fs::temp_directory_path() / "nccl_on_host_XXXXXX").string();
  if (::mkdtemp(folder.data()) == nullptr || folder.size() >= sizeof id->internal) return ncclSystemError;
  std::memset(id->internal, 0, sizeof id->internal);
  std::memcpy(id->internal, folder.data(), folder.size());
  return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t* made, int size, ncclUniqueId id, int rank, ncclConfig_t* config) {
  if (!takes(*config, 0) || size != 2 || rank < 0 || rank >= size) return ncclInvalidArgument;
  *made = new ncclComm{.base = std::string(id.internal) + "/pair", .rank = rank};
  arrive(**made, "init");
  return ncclInProgress;
}
ncclResult_t ncclCommSplit(ncclComm_t parent, int color, int key, ncclComm_t* made, ncclConfig_t* config) {
  const call one(*parent);
  if (!takes(*config, 1) || color != 0) return ncclInvalidArgument;
  if (parent->blocking || parent->aborted || parent->ends || parent->splits || !other_is_at(*parent, "init"))
    return ncclInvalidUsage;
  parent->splits = true;
  arrive(*parent, "split", std::to_string(key));
  std::thread([=] { split(*parent, key, made); }).detach();
  return key == 0 ? ncclSuccess
                  : ncclInProgress;  // NCCL 2.28 returns success; a call that has not ended may say so, too
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t* state) {
  const call one(*c);
  if (c->aborted) return ncclInvalidArgument;
  const bool ready = c->blocking || (other_is_at(*c, "init") && !c->splits);
  *state = c->failed ? ncclRemoteError : ready ? ncclSuccess : ncclInProgress;
  return ncclSuccess;
}
ncclResult_t ncclSend(const void* from, size_t size, ncclDataType_t, int peer, ncclComm_t c, cudaStream_t s) {
  return message(c, true, static_cast<std::byte*>(const_cast<void*>(from)), size, peer, s);
}
ncclResult_t ncclRecv(void* into, size_t size, ncclDataType_t, int peer, ncclComm_t c, cudaStream_t s) {
  return message(c, false, static_cast<std::byte*>(into), size, peer, s);
}
ncclResult_t ncclCommRegister(ncclComm_t, void*, size_t, void**) { return ncclSuccess; }
ncclResult_t ncclCommDeregister(ncclComm_t, void*) { return ncclSuccess; }
ncclResult_t ncclCommFinalize(ncclComm_t c) {
  require_device();
  const call one(*c);
  if (c->aborted || c->splits || c->ends) return ncclInvalidUsage;
  if (c->captured && on_host_graphs > 0) die("a graph holds messages of a communicator that is closed");
  while (c->in_progress > 0 && !c->aborted) on_host_work(), std::this_thread::yield();
  c->ends = true;
  return c->blocking ? ncclSuccess : ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t c) {
  const call one(*c);
  if (!c->ends) return ncclInvalidUsage;
  return c->freed = true, ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t c) {
  require_device();
  if (c->freed) die("a communicator that was freed");
  c->aborted = true;
  while (on_host_aborts_hang) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  while (c->calls > 0 || c->splits || c->in_progress > 0 || (c->captured && on_host_graphs > 0))
    on_host_work(), std::this_thread::yield();
  return c->freed = true, ncclSuccess;
}

}  // extern "C"
