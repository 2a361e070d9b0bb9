// SPDX-License-Identifier: MIT
#pragma once

// A list whose values are found by a key.

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <utility>
#include <vector>

namespace pipesched {

/// Values in the order in which they came, found by `key_of(value)`, a 64-bit number, in the same time however many there are.
/// Of several values with one key the first one is found.
template <typename T>
class keyed_list {
 public:
  using value_type = T;

  constexpr keyed_list() = default;
  constexpr keyed_list(std::initializer_list<T> values) : keyed_list(std::vector<T>(values)) {}
  constexpr keyed_list(std::vector<T> values) : values_(std::move(values)) { index(); }  // NOLINT: implicit

  constexpr const T& operator[](std::size_t i) const noexcept { return values_[i]; }
  constexpr const T& back() const noexcept { return values_.back(); }
  constexpr auto begin() const noexcept { return values_.begin(); }
  constexpr auto end() const noexcept { return values_.end(); }
  constexpr std::size_t size() const noexcept { return values_.size(); }
  constexpr bool empty() const noexcept { return values_.empty(); }

  /// The place of the first value with that key; size() without one.
  constexpr std::size_t place_of(std::uint64_t key) const noexcept {
    if (slots_.empty()) return size();
    for (std::size_t at = first_slot(key);; at = (at + 1) % slots_.size()) {
      if (slots_[at].place == none) return size();
      if (slots_[at].key == key) return slots_[at].place;
    }
  }
  /// The first value with that key, or null.
  constexpr const T* find(std::uint64_t key) const noexcept {
    const std::size_t place = place_of(key);
    return place == size() ? nullptr : &values_[place];
  }

  constexpr void push_back(T value) {
    values_.push_back(std::move(value));
    if (2 * size() > slots_.size())
      index();
    else
      note(size() - 1);
  }
  constexpr void pop_back() {
    values_.pop_back();
    index();
  }
  constexpr void clear() noexcept {
    values_.clear();
    slots_.clear();
  }
  /// Calls `f(value)` for every value, which it may change. Linear, as the next ones are.
  template <typename F>
  constexpr void change_each(F&& f) {
    for (T& value : values_) f(value);
    index();
  }
  template <typename F>
  constexpr void change(std::size_t i, F&& f) {
    f(values_[i]);
    index();
  }
  template <typename F>
  constexpr void erase_if(F&& f) {
    std::erase_if(values_, f);
    index();
  }

  friend constexpr bool operator==(const keyed_list& a, const keyed_list& b) { return a.values_ == b.values_; }

 private:
  static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max();

  struct slot {
    std::uint64_t key = 0;
    std::uint32_t place = none;
  };

  constexpr std::size_t first_slot(std::uint64_t key) const noexcept {
    const std::uint64_t mixed = (key ^ key >> 32) * 0x9E37'79B9'7F4A'7C15;
    return static_cast<std::size_t>(mixed >> 20) % slots_.size();
  }
  // At most half of the slots are taken, or a few of the first four.
  constexpr void index() {
    std::size_t slots = values_.empty() ? 0 : 4;
    while (slots < 4 * values_.size()) slots *= 2;
    slots_.assign(slots, {});
    for (std::size_t i = 0; i < values_.size(); ++i) note(i);
  }
  constexpr void note(std::size_t place) {
    const std::uint64_t key = key_of(values_[place]);
    std::size_t at = first_slot(key);
    for (; slots_[at].place != none; at = (at + 1) % slots_.size())
      if (slots_[at].key == key) return;
    slots_[at] = {key, static_cast<std::uint32_t>(place)};
  }

  std::vector<T> values_;
  std::vector<slot> slots_;
};

}  // namespace pipesched
