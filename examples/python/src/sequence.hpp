// SPDX-License-Identifier: MIT
#pragma once

// Classes that are sequences in Python, as collections.abc.Sequence has them.

#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <pipesched/support/error.hpp>

namespace nb = nanobind;

namespace python {

/// The place of an index, which counts from the end if it is negative. @throws nb::index_error
inline std::size_t place_of(std::int64_t index, std::size_t size, const char* what) {
  const auto length = static_cast<std::int64_t>(size);
  if (index < -length || index >= length)
    throw nb::index_error(
        pipesched::detail::concat({what, " ", index, " of ", size, "; expected ", -length, " to ", length - 1})
            .c_str());
  return static_cast<std::size_t>(index < 0 ? index + length : index);
}

/// A sequence whose elements are made when they are asked for.
struct sequence_entry {
  const char* index;    ///< the word for an index in errors: "rank"
  const char* element;  ///< the class of an element, for signatures
  std::size_t (*size)(nb::handle self);
  nb::object (*at)(nb::handle self, std::size_t i);  ///< @pre i < size(self)
};

/// Adds len, [] with slices, iteration, in, index and count to the class, and registers it as a Sequence. A slice is a list.
void add_sequence(nb::handle type, const sequence_entry& entry);

}  // namespace python
