// SPDX-License-Identifier: MIT
#pragma once

// Rows of values, one per rank, of any length, in one contiguous block. Schedules keep their cells in it, and timelines
// their intervals. A regular value: copy, ==, swap.

#include <algorithm>
#include <cstddef>
#include <initializer_list>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pipesched {

template <typename T>
class rows {
  static_assert(std::is_trivially_copyable_v<T> && std::is_default_constructible_v<T>);

 public:
  constexpr rows() = default;
  constexpr rows(std::initializer_list<std::initializer_list<T>> all) : rows() {
    for (const auto& row : all) append(std::span<const T>(row.begin(), row.size()));
  }
  constexpr explicit rows(const std::vector<std::vector<T>>& all) : rows() {
    for (const auto& row : all) append(row);
  }

  /// Makes rows of the given lengths. Their values are unspecified until assigned: generators overwrite all of them, so
  /// the block is not zeroed first.
  static constexpr rows for_overwrite(std::span<const std::size_t> lengths) {
    rows r;
    r.ends_.reserve(lengths.size());
    std::size_t size = 0;
    for (std::size_t length : lengths) r.ends_.push_back(size += length);
    r.reserve(size);
    return r;
  }

  /// Makes rows of the same lengths as those of `other`.
  template <typename U>
  static constexpr rows for_overwrite_like(const rows<U>& other) {
    std::vector<std::size_t> lengths;
    for (std::size_t r = 0; r < other.count(); ++r) lengths.push_back(other[r].size());
    return for_overwrite(lengths);
  }

  constexpr rows(const rows& other) : rows() {
    ends_ = other.ends_;
    reserve(other.size());
    std::copy_n(other.block_, other.size(), block_);
  }
  constexpr rows(rows&& other) noexcept { swap(other); }
  constexpr rows& operator=(rows other) noexcept {
    swap(other);
    return *this;
  }
  constexpr ~rows() { release(block_); }
  constexpr void swap(rows& other) noexcept {
    std::swap(ends_, other.ends_);
    std::swap(block_, other.block_);
    std::swap(capacity_, other.capacity_);
  }

  /// Adds a row at the end. Amortised linear in its length. @pre `row` is not part of this object
  constexpr void append(std::span<const T> row) {
    const std::size_t old = size();
    if (old + row.size() > capacity_) reserve(std::max(old + row.size(), 2 * capacity_));
    std::copy(row.begin(), row.end(), block_ + old);
    ends_.push_back(old + row.size());
  }

  /// count() is the number of rows, size() the number of values in all of them.
  constexpr std::size_t count() const noexcept { return ends_.size(); }
  constexpr std::size_t size() const noexcept { return ends_.empty() ? 0 : ends_.back(); }

  constexpr std::span<const T> operator[](std::size_t r) const noexcept { return {first(r), last(r)}; }
  constexpr std::span<T> operator[](std::size_t r) noexcept { return {first(r), last(r)}; }
  /// All values, row after row.
  constexpr std::span<const T> all() const noexcept { return {block_, size()}; }
  constexpr std::span<T> all() noexcept { return {block_, size()}; }

  friend constexpr bool operator==(const rows& a, const rows& b) {
    return a.ends_ == b.ends_ && std::equal(a.block_, a.block_ + a.size(), b.block_);
  }

 private:
  constexpr T* first(std::size_t r) const noexcept { return block_ + (r == 0 ? 0 : ends_[r - 1]); }
  constexpr T* last(std::size_t r) const noexcept { return block_ + ends_[r]; }

  // Uninitialised storage avoids writing twice. Constant evaluation needs initialised memory, so it is zeroed there.
  static constexpr T* acquire(std::size_t capacity) {
    if (std::is_constant_evaluated()) return new T[capacity]{};
    return static_cast<T*>(::operator new(capacity * sizeof(T), std::align_val_t(alignof(T))));
  }
  static constexpr void release(T* block) noexcept {
    if (std::is_constant_evaluated())
      delete[] block;
    else
      ::operator delete(block, std::align_val_t(alignof(T)));
  }

  constexpr void reserve(std::size_t capacity) {
    if (capacity <= capacity_) return;
    T* block = acquire(capacity);
    if (block_) {
      std::copy_n(block_, std::min(capacity_, size()), block);
      release(block_);
    }
    block_ = block;
    capacity_ = capacity;
  }

  std::vector<std::size_t> ends_;  // ends_[r]: end of row r and begin of row r + 1
  T* block_ = nullptr;
  std::size_t capacity_ = 0;
};

}  // namespace pipesched
