// SPDX-License-Identifier: MIT
// A stand-in for NCCL between processes, beside on_host.cpp: messages and splits are files in a folder. As there, a send ends
// only when its receive has come to the front of its stream; a split says that it has succeeded, goes on in a thread, and
// fills in its communicator late, while the parent is busy; an abort waits until the messages of its communicator have ended,
// and graphs that hold some have been destroyed. What is done with a communicator that is busy is an error, with one that is
// no more the end.

#include <nccl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

extern std::atomic<int> on_host_graphs;
bool on_host_captures();
void on_host_work();
void on_host_put(cudaStream_t s, std::function<bool()> ready, std::function<void()> work);

namespace fs = std::filesystem;

struct ncclComm {
  std::string base{};  // of its files
  int rank = -1, size = 0;

  std::atomic<int> splits{0}, splits_done{0};
  std::size_t messages = 0;
  bool ready = false, ended = false, captured = false, alive = true;
  std::atomic<int> under_way{0};  // messages
  std::atomic<bool> aborted{false}, failed{false};
};

namespace {

std::recursive_mutex mutex;

void write(const std::string& name, const std::string& text) {
  std::ofstream(name + ".part", std::ios::binary) << text;
  fs::rename(name + ".part", name);
}
std::string read(const std::string& name) {
  std::ifstream in(name, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
std::string of_rank(const ncclComm& c, int split, int rank) {
  return c.base + ".split" + std::to_string(split) + "." + std::to_string(rank);
}
bool all_there(const ncclComm& c, int split) {
  for (int r = 0; r < c.size; ++r)
    if (!fs::exists(of_rank(c, split, r))) return false;
  return true;
}
// Alive, and with nothing under way?
bool get_ready(ncclComm& c) {
  if (!c.alive) std::fputs("the stand-in for NCCL: a communicator that is no more\n", stderr), std::abort();
  c.ready = c.ready || all_there(c, 0);
  return c.ready && c.splits == c.splits_done;
}
// In a thread: until all have split, and then a little.
void split(ncclComm& parent, int number, int color, int key, ncclComm_t* made) {
  while (!all_there(parent, number)) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (color >= 0) {
    auto* const child =
        new ncclComm{.base = parent.base + ".split" + std::to_string(number) + ".color" + std::to_string(color),
                     .rank = 0,
                     .ready = true};
    for (int r = 0; r < parent.size; ++r) {
      int its_color = 0, its_key = 0;
      std::sscanf(read(of_rank(parent, number, r)).c_str(), "%d %d", &its_color, &its_key);
      if (its_color == color) ++child->size, child->rank += its_key < key;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    __atomic_store_n(made, child, __ATOMIC_RELEASE);
  }
  parent.splits_done = number;
}

// Within a group aborts wait for their messages together.
thread_local int group_depth = 0;
thread_local std::vector<ncclComm_t> group;
void end_group() {
  for (ncclComm_t c : group) c->aborted = true;
  for (ncclComm_t c : group) {
    while (c->under_way > 0 || (c->captured && on_host_graphs > 0)) on_host_work(), std::this_thread::yield();
    c->alive = false;
  }
  group.clear();
}

// As NCCL compares the limits: before defaults are filled in, and an unset one is INT_MIN.
bool takes(const ncclConfig_t& config) { return config.blocking == 0 && config.minCTAs <= config.maxCTAs; }

ncclResult_t message(ncclComm* c, bool sends, std::byte* bytes, std::size_t size, int peer, cudaStream_t s) {
  const std::lock_guard lock(mutex);
  if (c->aborted || c->ended || !get_ready(*c) || c->size != 2 || peer != 1 - c->rank) return ncclInvalidUsage;
  const std::string name = c->base + ".message" + std::to_string(c->messages++), want = name + ".want";
  c->captured = c->captured || on_host_captures();
  if (!on_host_captures()) ++c->under_way;
  struct ends {
    ncclComm_t c;
    ~ends() { c->under_way -= c->under_way > 0; }
  };
  if (sends) {
    on_host_put(
        s, [=] { return c->aborted || fs::exists(want); },
        [=] {
          const ends at_last{c};
          if (!c->aborted) write(name, {reinterpret_cast<const char*>(bytes), size});
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
        const ends at_last{c};
        if (c->aborted) return;
        const std::string came = read(name);
        if (came.size() != size) c->failed = true;
        std::memcpy(bytes, came.data(), std::min(size, came.size()));
        fs::remove(want), fs::remove(name);
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
  if (!takes(*config)) return ncclInvalidArgument;
  *made = new ncclComm{.base = std::string(id.internal) + "/world", .rank = rank, .size = size};
  write(of_rank(**made, 0, rank), "");
  return ncclInProgress;
}
ncclResult_t ncclCommSplit(ncclComm_t parent, int color, int key, ncclComm_t* made, ncclConfig_t* config) {
  const std::lock_guard lock(mutex);
  if (!takes(*config)) return ncclInvalidArgument;
  if (!get_ready(*parent)) return ncclInvalidUsage;
  const int number = ++parent->splits;
  write(of_rank(*parent, number, parent->rank), std::to_string(color) + " " + std::to_string(key));
  std::thread([=] { split(*parent, number, color, key, made); }).detach();
  return ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t* state) {
  const std::lock_guard lock(mutex);
  if (c->aborted) return ncclInvalidArgument;
  const bool ready = get_ready(*c);
  *state = c->failed ? ncclRemoteError : ready ? ncclSuccess : ncclInProgress;
  return ncclSuccess;
}
ncclResult_t ncclCommUserRank(ncclComm_t c, int* rank) { return *rank = c->rank, ncclSuccess; }
ncclResult_t ncclCommCount(ncclComm_t c, int* size) { return *size = c->size, ncclSuccess; }
ncclResult_t ncclSend(const void* from, size_t size, ncclDataType_t, int peer, ncclComm_t c, cudaStream_t s) {
  return message(c, true, static_cast<std::byte*>(const_cast<void*>(from)), size, peer, s);
}
ncclResult_t ncclRecv(void* into, size_t size, ncclDataType_t, int peer, ncclComm_t c, cudaStream_t s) {
  return message(c, false, static_cast<std::byte*>(into), size, peer, s);
}
ncclResult_t ncclCommRegister(ncclComm_t, void*, size_t, void**) { return ncclSuccess; }
ncclResult_t ncclCommDeregister(ncclComm_t, void*) { return ncclSuccess; }
ncclResult_t ncclCommFinalize(ncclComm_t c) { return c->ended = true, ncclSuccess; }
ncclResult_t ncclCommDestroy(ncclComm_t c) { return c->alive = false, ncclSuccess; }
ncclResult_t ncclCommAbort(ncclComm_t c) {
  if (!c->alive) get_ready(*c);
  group.push_back(c);
  if (group_depth == 0) end_group();
  return ncclSuccess;
}
ncclResult_t ncclGroupStart() { return ++group_depth, ncclSuccess; }
ncclResult_t ncclGroupEnd() {
  if (--group_depth == 0) end_group();
  return ncclSuccess;
}

}  // extern "C"
