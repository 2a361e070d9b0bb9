// SPDX-License-Identifier: MIT
// A program runs to its end if and only if verify() passes it. Ranks are threads, a send ends only when its receive is posted,
// and a trainer that computes nothing checks that all it needs is in its place.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <mutex>
#include <optional>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "pipesched/execute/run.hpp"
#include "pipesched/generate/families.hpp"
#include "pipesched/program/lower.hpp"
#include "pipesched/program/verify.hpp"
#include "support/families.hpp"
#include "support/random_programs.hpp"
#include "support/two_replicas.hpp"

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

// One rank: the contents of its buffers and slots, as its own actions and those of its transport leave them.
class rank_state {
 public:
  rank_state(const program& p, std::uint32_t rank)
      : p_(p),
        rank_(rank),
        buffers(p.pools[rank].buffers()),
        stages_(p.schedule.placement.stages_of(rank)),
        left_(stages_.size()),
        reduced_(stages_.size()),
        gradients_(stages_.size()),
        is_sum_(stages_.size()),
        sent_(stages_.size()),
        activations_(p.pools[rank][pool::activation]),
        contexts_(p.pools[rank][pool::context]) {
    for (const cell& c : p.schedule[rank])
      for (const op& o : c) left_[o.chunk] += yields_weight_gradient(o.pass);
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
  std::span<std::byte> buffer(tensor_id message, std::uint32_t n) {
    const bool gradient = message.kind == tensor_kind::weight_gradient;
    const std::uint32_t tensors = p_.pools[rank_][pool::tensor];
    require(gradient ? n >= tensors && n < p_.pools[rank_].owned_buffers() : n < tensors, "no such buffer");
    return std::as_writable_bytes(std::span(&buffers[n].what, 1));
  }
  std::span<std::byte> weight_gradient(std::uint32_t chunk) {
    gradients_[chunk] = whole(chunk);
    const placement& where = p_.schedule.placement;
    const std::uint16_t stage = stages_[chunk];
    const bool on_two_ranks = where.replicas() == 2 && where.rank_of_stage(0)[stage] != where.rank_of_stage(1)[stage];
    require(std::exchange(sent_[chunk], true) || !is_sum_[chunk] || !on_two_ranks, "a sum for the other replica");
    return std::as_writable_bytes(std::span(&gradients_[chunk], 1));
  }
  void reduce(reduction r) {
    require(whole(r.chunk).stage == r.stage, "the chunk of another stage");
    is_sum_[r.chunk] = true;
    if (r.buffer == no_slot) {
      require(r.other_chunk != r.chunk && whole(r.other_chunk) == r.other, "another weight gradient");
      is_sum_[r.other_chunk] = true;
    } else {
      require(r.buffer >= p_.pools[rank_][pool::tensor] && r.buffer < p_.pools[rank_].owned_buffers(),
              "no such buffer");
      struct buffer& b = buffers[r.buffer];
      require(b.is == content::held && b.what == r.other, "another weight gradient");
      b.is = content::nothing;
    }
    if (r.other.stage == r.stage) ++reduced_[r.chunk];
  }

  // True if all cells have run, no message is left, and all stages have been reduced.
  bool complete() const {
    if (next_ != p_.schedule[rank_].size()) return false;
    for (const struct buffer& b : buffers)
      if (b.is == content::held || b.is == content::receiving) return false;
    const placement& where = p_.schedule.placement;
    if (where.replicas() < 2 || p_.schedule.forward_only) return true;
    for (const std::uint16_t stage : stages_) {
      std::uint32_t reduced = 0;  // of both chunks if both replicas are on this rank
      for (std::size_t chunk = 0; chunk < stages_.size(); ++chunk)
        if (stages_[chunk] == stage) reduced += reduced_[chunk];
      if (reduced != 1) return false;
    }
    return true;
  }

 private:
  const program& p_;
  std::uint32_t rank_;

 public:
  std::vector<struct buffer> buffers;  // tensors, then reductions, then sent gradients

 private:
  // The weight gradient of a chunk, to which nothing is added any more.
  tensor_id whole(std::uint32_t chunk) const {
    require(chunk < stages_.size() && left_[chunk] == 0, "a weight gradient that is not whole");
    return {tensor_kind::weight_gradient, stages_[chunk], 0};
  }
  void run(std::span<const task> tasks) {
    require(next_ < p_.schedule[rank_].size(), "a cell too many");
    const cell& expected = p_.schedule[rank_][next_++];
    const std::uint32_t stages = p_.schedule.stages();
    require(tasks.size() == expected.size(), "another cell");
    for (const task& t : tasks)  // before any input is used up
      if (output_of(t.what, stages))
        require(t.slots.output < p_.pools[rank_][pool::tensor] && buffers[t.slots.output].is == content::nothing,
                "the output has no room");
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      require(tasks[i].what == expected[i], "another cell");
      const auto in = input_of(tasks[i].what, stages);
      require(in.has_value() == (tasks[i].slots.input != no_slot), "an input too many or too few");
      if (!in) continue;
      require(tasks[i].slots.input < p_.pools[rank_][pool::tensor], "no such buffer");
      struct buffer& b = buffers[tasks[i].slots.input];
      require(b.is == content::held && b.what == *in, "the input is not there");
      b.is = content::nothing;
    }
    for (const task& t : tasks) {
      const auto out = output_of(t.what, stages);
      require(out.has_value() == (t.slots.output != no_slot), "an output too many or too few");
      if (!out) continue;
      struct buffer& b = buffers[t.slots.output];
      require(b.is == content::nothing, "the output has no room");  // of the other op
      b = {content::held, *out};
    }
    for (const task& t : tasks) {
      keep(activations_, t, t.slots.activation, t.what.pass == pass::forward);
      if (t.what.pass != pass::forward)
        keep(contexts_, t, t.slots.context, t.what.pass == pass::backward_input || t.what.pass == pass::backward);
    }
    for (const task& t : tasks) {
      if (p_.schedule.forward_only || yields_weight_gradient(t.what.pass)) activations_[t.slots.activation].reset();
      if (yields_weight_gradient(t.what.pass)) contexts_[t.slots.context].reset();
      left_[t.what.chunk] -= yields_weight_gradient(t.what.pass);
    }
  }
  using slot = std::optional<std::pair<std::uint32_t, std::uint32_t>>;  // stage, micro-batch
  static void keep(std::vector<slot>& pool, const task& t, std::uint32_t at, bool puts) {
    require(at < pool.size(), "no such slot");
    const slot own{{t.what.stage, t.what.micro}};
    require(pool[at] == (puts ? slot{} : own), puts ? "the slot is taken" : "the slot has something else");
    pool[at] = own;
  }

  std::vector<std::uint16_t> stages_;          // by chunk
  std::vector<std::uint32_t> left_, reduced_;  // by chunk: W's and B's to come, additions of the same stage's gradient
  std::vector<tensor_id> gradients_;           // by chunk, as it is sent
  std::vector<char> is_sum_, sent_;            // by chunk: its gradient has another one in it; has been sent
  std::vector<slot> activations_, contexts_;
  std::size_t next_ = 0;
};

// The messages of all ranks. When all ranks that have not ended wait, they wait for ever.
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
      : p_(p), all_(all), own_(own), rank_(rank), posted_(own.buffers.size()) {}

  void on_action(std::uint32_t) { require(!all_.over(), "another rank is wrong"); }
  void post_receive(const action& a, std::span<std::byte> bytes) {
    struct buffer& b = own_.buffers[a.buffer];
    require(b.is == content::nothing, "something is in the buffer");
    b.is = content::receiving;
    post(a, bytes.data());
  }
  void post_send(const action& a, std::span<const std::byte> bytes) {
    if (is_weight_gradient(a)) {
      require(a.buffer >= p_.pools[rank_].owned_buffers() && a.buffer < own_.buffers.size(), "no such buffer");
      require(own_.buffers[a.buffer].is == content::nothing, "the buffer is taken");
    } else {
      require(own_.buffers[a.buffer].is == content::held, "the buffer does not hold what is sent");
    }
    tensor_id sent;
    std::memcpy(&sent, bytes.data(), sizeof sent);
    require(sent == a.what, "the memory does not hold what is sent");
    own_.buffers[a.buffer].is = content::sending;
    post(a, const_cast<std::byte*>(bytes.data()));  // only read
  }
  void wait(std::uint32_t n) {
    require(n < own_.buffers.size(), "no such buffer");
    struct buffer& b = own_.buffers[n];
    if (b.is != content::receiving && b.is != content::sending) return;
    all_.wait_for(rank_, posted_[n].first, posted_[n].second);
    // A weight gradient that was sent stays taken: its number is used once a step.
    if (n < p_.pools[rank_].owned_buffers()) b.is = b.is == content::receiving ? content::held : content::nothing;
  }
  void finish() {
    for (std::uint32_t n = 0; n < own_.buffers.size(); ++n) wait(n);
  }

 private:
  void post(const action& a, std::byte* bytes) {
    const bool receives = a.kind == action_kind::receive;
    require(a.channel < p_.channels.size(), "no such channel");
    const channel& c = p_.channels[a.channel];
    require((receives ? c.to : c.from) == rank_, "the channel of another rank");
    posted_[a.buffer] = {a.channel, all_.post(a.channel, receives, a.what, bytes)};
  }

  const program& p_;
  meeting& all_;
  rank_state& own_;
  std::uint32_t rank_;
  std::vector<std::pair<std::uint32_t, std::size_t>> posted_;  // by buffer: channel and number
};

// True if all ranks run to their ends, with nothing wrong on the way.
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
          run(p, rank, ranks[rank], transport);
          ended[rank] = ranks[rank].complete();
        } catch (const wrong&) {
          all.fail();
        } catch (const trainer_error& e) {
          all.fail();
          try {
            std::rethrow_if_nested(e);
          } catch (const wrong&) {
          }
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

TEST_CASE("rendezvous: replicas of a stage on two ranks or on one run to their end") {
  for (const std::vector<std::vector<std::uint16_t>>& homes :
       {std::vector<std::vector<std::uint16_t>>{{0, 1, 2}, {2, 0, 1}}, {{0, 1, 2}, {0, 1, 2}}, {{0, 1, 2}, {2, 1, 0}}})
    CHECK(runs(lower(two_replicas(homes))));
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
  programs.push_back(lower(two_replicas({{0, 1, 2}, {0, 1, 2}})));
  programs.push_back(lower(two_replicas({{0, 1, 2}, {2, 1, 0}})));
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
