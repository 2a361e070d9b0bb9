// SPDX-License-Identifier: MIT
// A stand-in for NCCL between processes, beside on_host.cpp: messages and splits are files in a folder. A send ends only
// when its receive has come to the front of its stream; what is done with a communicator that is not ready, or no more, is an
// error, as is a size that differs.

#include <nccl.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

void on_host_put(cudaStream_t s, std::function<bool()> ready, std::function<void()> work);

namespace fs = std::filesystem;

struct ncclComm {
  std::string base{};  // of its files
  int rank = -1, size = 0;
  // Of a child until all have split.
  ncclComm* parent = nullptr;
  int split = 0, color = 0, key = 0;

  int splits = 0;
  std::size_t messages = 0;
  bool ready = false, ended = false;
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
bool get_ready(ncclComm& c) {
  if (c.ready) return true;
  if (c.parent == nullptr) return c.ready = all_there(c, 0);
  if (!all_there(*c.parent, c.split)) return false;
  for (int r = 0; r < c.parent->size; ++r) {
    int color = 0, key = 0;
    std::sscanf(read(of_rank(*c.parent, c.split, r)).c_str(), "%d %d", &color, &key);
    if (color != c.color) continue;
    ++c.size;
    c.rank += key < c.key;
  }
  ++c.rank;
  return c.ready = true;
}

ncclResult_t message(ncclComm* c, bool sends, std::byte* bytes, std::size_t size, int peer, cudaStream_t s) {
  const std::lock_guard lock(mutex);
  if (c->aborted || c->ended || !get_ready(*c) || c->size != 2 || peer != 1 - c->rank) return ncclInvalidUsage;
  const std::string name = c->base + ".message" + std::to_string(c->messages++), want = name + ".want";
  if (sends) {
    on_host_put(
        s, [=] { return c->aborted || fs::exists(want); },
        [=] {
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
  if (config->blocking != 0) return ncclInvalidArgument;
  *made = new ncclComm{.base = std::string(id.internal) + "/world", .rank = rank, .size = size};
  write(of_rank(**made, 0, rank), "");
  return ncclInProgress;
}
ncclResult_t ncclCommSplit(ncclComm_t parent, int color, int key, ncclComm_t* made, ncclConfig_t* config) {
  const std::lock_guard lock(mutex);
  if (config->blocking != 0 || !get_ready(*parent) || (parent->splits > 0 && !all_there(*parent, parent->splits)))
    return ncclInvalidUsage;
  const int split = ++parent->splits;
  *made = nullptr;
  if (color >= 0)
    *made = new ncclComm{.base = parent->base + ".split" + std::to_string(split) + ".color" + std::to_string(color),
                         .parent = parent,
                         .split = split,
                         .color = color,
                         .key = key};
  write(of_rank(*parent, split, parent->rank), std::to_string(color) + " " + std::to_string(key));
  return ncclInProgress;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t* state) {
  const std::lock_guard lock(mutex);
  if (c->aborted) return ncclInvalidArgument;
  const bool ready = get_ready(*c) && (c->splits == 0 || all_there(*c, c->splits));
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
ncclResult_t ncclCommDestroy(ncclComm_t) { return ncclSuccess; }
ncclResult_t ncclCommAbort(ncclComm_t c) { return c->aborted = true, ncclSuccess; }

}  // extern "C"
