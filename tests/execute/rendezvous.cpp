// SPDX-License-Identifier: MIT
// What verify() says of a program is what happens when it is run: ranks are threads, a send ends only when its receive is
// posted, and a trainer that computes nothing looks whether all that it needs is where it should be.

#include <doctest/doctest.h>

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "pipesched/execute/executor.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/verify.hpp"
#include "support/families.hpp"
#include "support/random_programs.hpp"

using namespace pipesched;
using namespace pipesched::tests;

namespace {

struct wrong : std::runtime_error {
  using std::runtime_error::runtime_error;
};
void require(bool good, const char* what) {
  if (!good) throw wrong(what);
}

enum class content : std::uint8_t { nothing, receiving, held, sending };
struct buffer {
  content is = content::nothing;
  tensor_id what{};
};

tensor_id made_by(tensor_id t) { return t; }

// One rank: what its buffers and slots hold, as its own actions and those of its transport leave them.
class rank_state {
 public:
  rank_state(const program& p, std::uint32_t rank)
      : p_(p),
        rank_(rank),
        buffers(p.pools[rank].buffers),
        reductions(p.pools[rank].reductions),
        activations_(p.pools[rank].activations),
        weights_(p.pools[rank].contexts) {
    for (const cell& c : p.schedule[rank])
      for (const op& o : c) left_[o.stage] += yields_weight_gradient(o.pass);
  }

  // The trainer.
  void forward(task t) { run({&t, 1}); }
  void backward(task t) { run({&t, 1}); }
  void backward_input(task t) { run({&t, 1}); }
  void backward_weight(task t) { run({&t, 1}); }
  void overlapped(task a, task b) {
    const task both[] = {a, b};
    run(both);
  }
  std::span<std::byte> buffer(std::uint32_t n) {
    require(n < buffers.size(), "no such buffer");
    return std::as_writable_bytes(std::span(&buffers[n].what, 1));
  }
  std::span<std::byte> weight_gradient(std::uint16_t stage) {
    require(left_.contains(stage) && left_[stage] == 0, "a weight gradient that is not whole");
    gradients_.try_emplace(stage, tensor_id{tensor_kind::weight_gradient, stage, 0});
    return std::as_writable_bytes(std::span(&gradients_[stage], 1));
  }
  std::span<std::byte> reduction_buffer(std::uint32_t n) {
    require(n < reductions.size(), "no such reduction buffer");
    return std::as_writable_bytes(std::span(&reductions[n].what, 1));
  }
  void reduce(std::uint16_t stage, std::uint16_t other, std::span<const std::byte> bytes) {
    require(left_.contains(stage) && left_[stage] == 0, "adds to a weight gradient that is not whole");
    tensor_id theirs{tensor_kind::weight_gradient, other, 0};
    if (!bytes.empty()) std::memcpy(&theirs, bytes.data(), sizeof theirs);
    require(theirs == tensor_id{tensor_kind::weight_gradient, other, 0}, "another weight gradient");
    if (stage == other) ++reduced_[stage];
  }

  // Have all cells run, and all stages been reduced?
  bool complete() const {
    if (next_ != p_.schedule[rank_].size()) return false;
    if (p_.schedule.placement.replicas() < 2 || p_.schedule.forward_only) return true;
    for (const auto& [stage, left] : left_) {
      const bool shared =
          p_.schedule.placement.rank_of_stage(0)[stage] != p_.schedule.placement.rank_of_stage(1)[stage];
      const auto at = reduced_.find(stage);
      if ((at == reduced_.end() ? 0 : at->second) != (shared ? 1 : 0)) return false;
    }
    return true;
  }

 private:
  const program& p_;
  std::uint32_t rank_;

 public:
  std::vector<struct buffer> buffers, reductions;

 private:
  void run(std::span<const task> tasks) {
    require(next_ < p_.schedule[rank_].size(), "a cell too many");
    const cell& expected = p_.schedule[rank_][next_++];
    const std::uint32_t stages = p_.schedule.stages();
    require(tasks.size() == expected.size(), "another cell");
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      require(tasks[i].what == expected[i], "another cell");
      const auto in = input_of(tasks[i].what, stages);
      require(in.has_value() == (tasks[i].slots.input != no_slot), "an input too many or too few");
      if (!in) continue;
      require(tasks[i].slots.input < buffers.size(), "no such buffer");
      struct buffer& b = buffers[tasks[i].slots.input];
      require(b.is == content::held && b.what == made_by(*in), "the input is not there");
      b.is = content::nothing;
    }
    for (const task& t : tasks) {
      const auto out = output_of(t.what, stages);
      require(out.has_value() == (t.slots.output != no_slot), "an output too many or too few");
      if (!out) continue;
      require(t.slots.output < buffers.size(), "no such buffer");
      struct buffer& b = buffers[t.slots.output];
      require(b.is == content::nothing, "the output has no room");
      b = {content::held, made_by(*out)};
    }
    for (const task& t : tasks) {
      keep(activations_, t, t.slots.activation, t.what.pass == pass::forward);
      if (t.what.pass != pass::forward)
        keep(weights_, t, t.slots.context, t.what.pass == pass::backward_input || t.what.pass == pass::backward);
    }
    for (const task& t : tasks) {
      if (p_.schedule.forward_only || yields_weight_gradient(t.what.pass)) activations_[t.slots.activation].reset();
      if (yields_weight_gradient(t.what.pass)) weights_[t.slots.context].reset();
      left_[t.what.stage] -= yields_weight_gradient(t.what.pass);
    }
  }
  using slot = std::optional<std::pair<std::uint32_t, std::uint32_t>>;  // stage, micro-batch
  static void keep(std::vector<slot>& pool, const task& t, std::uint32_t at, bool puts) {
    require(at < pool.size(), "no such slot");
    const slot own{{t.what.stage, t.what.micro}};
    require(pool[at] == (puts ? slot{} : own), puts ? "the slot is taken" : "the slot has something else");
    pool[at] = own;
  }

  std::vector<slot> activations_, weights_;
  std::size_t next_ = 0;
  std::map<std::uint32_t, std::uint32_t> left_, reduced_;  // by stage: W's and B's to come, reductions
  std::map<std::uint32_t, tensor_id> gradients_;
};

// What all ranks share. When all that have not ended wait, they wait for ever.
class meeting {
 public:
  explicit meeting(const program& p) : waits_(p.actions.size(), wait{}), channels_(p.channels.size()) {}

  struct wait {
    enum { no, message, end } what = no;
    std::uint32_t channel = 0;
    std::size_t number = 0;
  };

  void fail() {
    const std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }
  bool over() {
    const std::lock_guard lock(mutex_);
    return over_;
  }
  void end(std::uint32_t rank) {
    const std::lock_guard lock(mutex_);
    waits_[rank].what = wait::end;
    find_circle();
  }
  // Posts one side of a message; both sides' bytes meet. The number of the message in its channel.
  std::size_t post(std::uint32_t channel, bool receives, tensor_id what, std::byte* bytes) {
    const std::lock_guard lock(mutex_);
    auto& mine = channels_[channel][receives];
    auto& other = channels_[channel][!receives];
    const std::size_t number = mine.size();
    mine.push_back({what, bytes});
    if (number < other.size()) {
      require(other[number].what == what, "two messages meet");
      std::memcpy(channels_[channel][1][number].bytes, channels_[channel][0][number].bytes, sizeof(tensor_id));
      changed_.notify_all();
    }
    return number;
  }
  void wait_for(std::uint32_t rank, std::uint32_t channel, std::size_t number) {
    std::unique_lock lock(mutex_);
    waits_[rank] = {wait::message, channel, number};
    find_circle();
    changed_.wait(lock, [&] { return over_ || met(waits_[rank]); });
    require(met(waits_[rank]), "waits for ever, or another rank is wrong");
    waits_[rank].what = wait::no;
  }

 private:
  struct side {
    tensor_id what;
    std::byte* bytes;
  };
  bool met(const wait& w) const {
    return w.number < channels_[w.channel][0].size() && w.number < channels_[w.channel][1].size();
  }
  void find_circle() {
    bool waits = false;
    for (const wait& w : waits_) {
      if (w.what == wait::no || (w.what == wait::message && met(w))) return;
      waits = waits || w.what == wait::message;
    }
    over_ = over_ || waits;
    changed_.notify_all();
  }

  std::vector<wait> waits_;  // by rank
  std::vector<std::array<std::vector<side>, 2>> channels_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
};

class rendezvous {
 public:
  rendezvous(const program& p, meeting& all, rank_state& own, std::uint32_t rank)
      : p_(p), all_(all), own_(own), rank_(rank), posted_(own.buffers.size()), reductions_(own.reductions.size()) {}

  void at(std::uint32_t) { require(!all_.over(), "another rank is wrong"); }
  void post_receive(const action& a, std::span<std::byte> bytes) { post(a, bytes.data(), true); }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    post(a, const_cast<std::byte*>(bytes.data()), false);  // only read
  }
  void wait_received(std::uint32_t n, bool weights) {
    auto& in = weights ? own_.reductions : own_.buffers;
    require(n < in.size(), "no such buffer");
    require(in[n].is == content::held || in[n].is == content::receiving, "nothing comes into the buffer");
    if (in[n].is == content::receiving) wait(n, weights);
    in[n].is = weights ? content::nothing : content::held;  // a reduction is added at once
  }
  void wait_sent(std::uint32_t n) {
    require(n < own_.buffers.size(), "no such buffer");
    require(own_.buffers[n].is == content::nothing || own_.buffers[n].is == content::sending, "the buffer is taken");
    if (own_.buffers[n].is == content::sending) wait(n, false);
    own_.buffers[n].is = content::nothing;
  }
  void wait_weights_sent() {
    for (const auto& [channel, number] : weights_) all_.wait_for(rank_, channel, number);
  }
  void finish() {
    for (std::uint32_t n = 0; n < own_.buffers.size(); ++n)
      if (own_.buffers[n].is == content::sending || own_.buffers[n].is == content::receiving) wait(n, false);
    for (std::uint32_t n = 0; n < own_.reductions.size(); ++n)
      if (own_.reductions[n].is == content::receiving) wait(n, true);
    wait_weights_sent();
  }

 private:
  using place = std::pair<std::uint32_t, std::size_t>;  // channel, number

  void post(const action& a, std::byte* bytes, bool receives) {
    require(a.channel < p_.channels.size(), "no such channel");
    const channel& c = p_.channels[a.channel];
    require((receives ? c.to : c.from) == rank_, "the channel of another rank");
    const bool weights = a.what.kind == tensor_kind::weight_gradient;
    if (!receives && weights) {
      weights_.push_back({a.channel, all_.post(a.channel, receives, a.what, bytes)});
      return;
    }
    struct buffer& b = weights ? own_.reductions[a.buffer] : own_.buffers[a.buffer];
    if (receives)
      require(b.is == content::nothing, "something is in the buffer");
    else
      require(b.is == content::held && b.what == a.what, "the buffer does not hold what is sent");
    b.is = receives ? content::receiving : content::sending;
    (weights ? reductions_ : posted_)[a.buffer] = {a.channel, all_.post(a.channel, receives, a.what, bytes)};
  }
  void wait(std::uint32_t n, bool weights) {
    const auto [channel, number] = (weights ? reductions_ : posted_)[n];
    all_.wait_for(rank_, channel, number);
  }

  const program& p_;
  meeting& all_;
  rank_state& own_;
  std::uint32_t rank_;
  std::vector<place> posted_, reductions_;
  std::vector<place> weights_;
};

// Do all ranks run to their ends, with nothing wrong on the way?
bool runs(const program& p) {
  meeting all(p);
  std::vector<char> ended(p.actions.size());
  std::vector<rank_state> ranks;
  for (std::uint32_t rank = 0; rank < p.actions.size(); ++rank) ranks.emplace_back(p, rank);
  {
    std::vector<std::jthread> threads;
    for (std::uint32_t rank = 0; rank < p.actions.size(); ++rank)
      threads.emplace_back([&, rank] {
        try {
          rendezvous transport(p, all, ranks[rank], rank);
          execute(p, rank, ranks[rank], transport);
          ended[rank] = ranks[rank].complete();
        } catch (const wrong&) {
          all.fail();
        }
        all.end(rank);
      });
  }
  return std::find(ended.begin(), ended.end(), 0) == ended.end();
}

}  // namespace

TEST_CASE("rendezvous: every family runs to its end, at any depth") {
  for (const family& f : families)
    for (const std::uint32_t depth : {1u, 4u})
      for (const bool forward_only : {false, true}) {
        CAPTURE(f.name);
        CHECK(runs(lower(f.make({.pp = 4, .micro = 6, .forward_only = forward_only}), {.depth = depth})));
      }
}

TEST_CASE("rendezvous: exactly those of thousands of changed programs run to their end that verify() passes") {
#ifdef PIPESCHED_SMALL_GRIDS
  constexpr int rounds = 800;
#else
  constexpr int rounds = 6000;
#endif
  std::mt19937_64 random(31);
  std::vector<program> programs;
  for (const char* name : {"gpipe", "1f1b", "interleaved_1f1b", "looped_bfs", "zbv", "dualpipev", "v_half", "hanayo",
                           "dualpipe", "chimera"})
    for (const std::uint32_t depth : {1u, 2u, 4u})
      programs.push_back(lower(make_schedule(name, {.pp = 4, .micro = 6}), {.depth = depth}));
  int passed = 0, refused = 0;
  for (int round = 0; round < rounds; ++round) {
    program p = programs[random() % programs.size()];
    change_at_random(p, random);
    const report r = verify(p);
    CAPTURE(round);
    CAPTURE(to_string(r));
    REQUIRE(static_cast<bool>(r) == runs(p));
    ++(r ? passed : refused);
  }
  CHECK(passed > rounds / 6);
  CHECK(refused > rounds / 6);
}
