// SPDX-License-Identifier: MIT
#pragma once

// Rows of values, one per rank, of any length, in one contiguous block. Schedules keep their cells in it, and timelines
// their intervals. A regular value: copy, ==, swap; a range of its rows: `for (auto row : cells)`.

#include <algorithm>
#include <compare>
#include <concepts>
#include <cstddef>
#include <initializer_list>
#include <iterator>
#include <new>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pipesched {

/// Random-access iterator over the rows of `Rows`; dereferencing it makes a span.
template <typename Rows, typename Row>
class row_iterator {
 public:
  using value_type = Row;
  using difference_type = std::ptrdiff_t;
  using iterator_concept = std::random_access_iterator_tag;
  using iterator_category = std::input_iterator_tag;  // of C++17, whose stronger iterators yield references

  constexpr row_iterator() = default;
  constexpr row_iterator(Rows& all, std::size_t at) noexcept : all_(&all), at_(static_cast<std::ptrdiff_t>(at)) {}

  constexpr Row operator*() const noexcept { return (*all_)[static_cast<std::size_t>(at_)]; }
  constexpr Row operator[](std::ptrdiff_t n) const noexcept { return *(*this + n); }

  constexpr row_iterator& operator+=(std::ptrdiff_t n) noexcept {
    at_ += n;
    return *this;
  }
  constexpr row_iterator& operator-=(std::ptrdiff_t n) noexcept { return *this += -n; }
  constexpr row_iterator& operator++() noexcept { return *this += 1; }
  constexpr row_iterator& operator--() noexcept { return *this -= 1; }
  constexpr row_iterator operator++(int) noexcept { return std::exchange(*this, *this + 1); }
  constexpr row_iterator operator--(int) noexcept { return std::exchange(*this, *this - 1); }

  friend constexpr row_iterator operator+(row_iterator i, std::ptrdiff_t n) noexcept { return i += n; }
  friend constexpr row_iterator operator+(std::ptrdiff_t n, row_iterator i) noexcept { return i += n; }
  friend constexpr row_iterator operator-(row_iterator i, std::ptrdiff_t n) noexcept { return i -= n; }
  friend constexpr std::ptrdiff_t operator-(row_iterator a, row_iterator b) noexcept { return a.at_ - b.at_; }
  friend constexpr bool operator==(row_iterator a, row_iterator b) noexcept { return a.at_ == b.at_; }
  friend constexpr auto operator<=>(row_iterator a, row_iterator b) noexcept { return a.at_ <=> b.at_; }

 private:
  Rows* all_ = nullptr;
  std::ptrdiff_t at_ = 0;
};

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
    for (const auto row : other) lengths.push_back(row.size());
    return for_overwrite(lengths);
  }

  constexpr rows(const rows& other) : rows() {
    ends_ = other.ends_;
    reserve(other.total());
    std::copy_n(other.block_, other.total(), block_);
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
    const std::size_t old = total();
    if (old + row.size() > capacity_) reserve(std::max(old + row.size(), 2 * capacity_));
    std::copy(row.begin(), row.end(), block_ + old);
    ends_.push_back(old + row.size());
  }

  /// Replaces a row by what `change` makes of it, which may be longer or shorter: `change(row)` gets the row as a
  /// std::vector<T>&. Linear in the number of values of all rows. @pre number < size()
  template <std::invocable<std::vector<T>&> Change>
  constexpr void edit(std::integral auto number, Change&& change) {
    const auto r = static_cast<std::size_t>(number);
    std::vector<T> row(first(r), last(r));
    change(row);
    rows edited;
    edited.reserve(total() - (*this)[r].size() + row.size());
    for (std::size_t i = 0; i < size(); ++i) edited.append(i == r ? std::span<const T>(row) : std::as_const(*this)[i]);
    swap(edited);
  }

  /// The number of rows. `all().size()` is the number of values in all of them.
  constexpr std::size_t size() const noexcept { return ends_.size(); }
  constexpr bool empty() const noexcept { return ends_.empty(); }

  /// A row by its number, of any integer type. @pre 0 <= number < size()
  constexpr std::span<const T> operator[](std::integral auto number) const noexcept {
    const auto r = static_cast<std::size_t>(number);
    return {first(r), last(r)};
  }
  constexpr std::span<T> operator[](std::integral auto number) noexcept {
    const auto r = static_cast<std::size_t>(number);
    return {first(r), last(r)};
  }

  using iterator = row_iterator<rows, std::span<T>>;
  using const_iterator = row_iterator<const rows, std::span<const T>>;
  constexpr iterator begin() noexcept { return {*this, 0}; }
  constexpr iterator end() noexcept { return {*this, size()}; }
  constexpr const_iterator begin() const noexcept { return {*this, 0}; }
  constexpr const_iterator end() const noexcept { return {*this, size()}; }

  /// All values, row after row.
  constexpr std::span<const T> all() const noexcept { return {block_, total()}; }
  constexpr std::span<T> all() noexcept { return {block_, total()}; }

  friend constexpr bool operator==(const rows& a, const rows& b) {
    return a.ends_ == b.ends_ && std::equal(a.block_, a.block_ + a.total(), b.block_);
  }

 private:
  constexpr std::size_t total() const noexcept { return ends_.empty() ? 0 : ends_.back(); }
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
      std::copy_n(block_, std::min(capacity_, total()), block);
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
