// SPDX-License-Identifier: MIT
#pragma once

// A row of a schedule, timeline or program as a Python sequence that looks into the value, and rows from Python.

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <pipesched/support/rows.hpp>
#include <span>
#include <vector>

#include "convert.hpp"

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

/// One row of an immutable value, which it keeps alive.
template <typename T>
struct row_view {
  nb::object owner;
  std::span<const T> values;
};

template <typename T>
row_view<T> row_of(nb::handle owner, const rows<T>& all, std::int64_t rank) {
  return {nb::borrow(owner), all[place_of(rank, all.size(), "rank")]};
}
/// A tuple of all rows.
template <typename T>
nb::tuple rows_of(nb::handle owner, const rows<T>& all) {
  nb::list list;
  for (const auto row : all) list.append(nb::cast(row_view<T>{nb::borrow(owner), row}));
  return nb::tuple(list);
}

/// Makes the class of a row: len, [], slices, ==, index, count, and repr as a list.
template <typename T>
nb::class_<row_view<T>> define_row(nb::module_& m, const char* name, const char* doc) {
  using view = row_view<T>;
  nb::class_<view> type(m, name, doc);
  const auto list_of = [](std::span<const T> values) {
    nb::list all;
    for (const T& value : values) all.append(to_python(value, nb::handle()));
    return all;
  };
  type.def("__len__", [](const view& r) { return r.values.size(); })
      .def("__getitem__",
           [](const view& r, std::int64_t i) { return to_python(r.values[place_of(i, r.values.size(), "index")], {}); })
      .def("__getitem__",
           [](const view& r, const nb::slice& which) {
             const auto [start, stop, step, length] = which.compute(r.values.size());
             nb::list chosen;
             for (std::size_t k = 0; k < length; ++k)
               chosen.append(
                   to_python(r.values[static_cast<std::size_t>(start + static_cast<Py_ssize_t>(k) * step)], {}));
             return chosen;
           })
      .def(
          "__eq__",
          [list_of](const view& r, nb::handle other) {
            if (view* same = nullptr; nb::try_cast(other, same) && same)
              return std::ranges::equal(r.values, same->values);
            return nb::isinstance<nb::list>(other) && list_of(r.values).equal(other);
          },
          nb::sig("def __eq__(self, other: object) -> bool"))
      .def("__repr__", [list_of](const view& r) { return nb::repr(list_of(r.values)); })
      .def("count", [](const view& r, const T& value) { return std::count(r.values.begin(), r.values.end(), value); })
      .def("index", [](const view& r, const T& value) {
        const auto found = std::find(r.values.begin(), r.values.end(), value);
        if (found == r.values.end()) throw nb::value_error("not in this row");
        return found - r.values.begin();
      });
  nb::module_::import_("collections.abc").attr("Sequence").attr("register")(type);
  return type;
}

/// Rows as (lengths, bytes), for pickle, and back. @throws nb::value_error if the lengths do not add up to the bytes
template <typename T>
nb::tuple state_of(const rows<T>& all) {
  nb::list lengths;
  for (const auto row : all) lengths.append(row.size());
  return nb::make_tuple(lengths, nb::bytes(reinterpret_cast<const char*>(all.all().data()), all.all().size_bytes()));
}
template <typename T>
rows<T> rows_from_state(const nb::tuple& state) {
  std::vector<std::size_t> lengths;
  std::size_t total = 0;
  for (nb::handle length : nb::cast<nb::list>(state[0])) {
    lengths.push_back(nb::cast<std::uint32_t>(length));
    total += lengths.back();
  }
  const auto bytes = nb::cast<nb::bytes>(state[1]);
  if (bytes.size() != total * sizeof(T)) throw nb::value_error("this pickle is damaged: its rows have other lengths");
  rows<T> all = rows<T>::for_overwrite(lengths);
  if (total > 0) std::memcpy(all.all().data(), bytes.c_str(), bytes.size());
  return all;
}

}  // namespace python
