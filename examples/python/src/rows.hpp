// SPDX-License-Identifier: MIT
#pragma once

// A row of a schedule, timeline or program as a Python sequence that looks into the value, and rows from Python.

#include <nanobind/nanobind.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <pipesched/support/rows.hpp>
#include <span>
#include <type_traits>
#include <vector>

#include "convert.hpp"
#include "extend.hpp"
#include "sequence.hpp"

namespace python {

/// One row of an immutable value, which it keeps alive.
template <typename T>
struct row_view {
  nb::object owner;
  std::span<const T> values;
};

template <typename T>
row_view<T> row_of(nb::handle owner, const rows<T>& all, std::size_t rank) {
  return {nb::borrow(owner), all[rank]};
}
/// A tuple of all rows.
template <typename T>
nb::tuple rows_of(nb::handle owner, const rows<T>& all) {
  nb::list list;
  for (const auto row : all) list.append(nb::cast(row_view<T>{nb::borrow(owner), row}));
  return nb::tuple(list);
}

/// Makes the class of a row: a sequence that compares with other rows, lists and tuples, hashes as a tuple, prints as a list,
/// and pickles its values alone.
template <typename T>
nb::class_<row_view<T>> define_row(nb::module_& m, const char* name, const char* doc, const char* element) {
  using view = row_view<T>;
  static_assert(std::is_trivially_copyable_v<T>);
  nb::class_<view> type(m, name, doc);
  const auto list_of = [](std::span<const T> values) {
    nb::list all;
    for (const T& value : values) all.append(to_python(value, nb::handle()));
    return all;
  };
  refuse_construction(type, "rows come from schedules, timelines and programs: schedule[rank]");
  add_sequence(type,
               {"index", element, [](nb::handle self) { return nb::cast<const view&>(self).values.size(); },
                [](nb::handle self, std::size_t i) { return to_python(nb::cast<const view&>(self).values[i], {}); }});
  type.def(
          "__eq__",
          [list_of](const view& r, nb::handle other) {
            if (view* same = nullptr; nb::try_cast(other, same) && same)
              return std::ranges::equal(r.values, same->values);
            if (nb::isinstance<nb::tuple>(other)) return nb::tuple(list_of(r.values)).equal(other);
            return nb::isinstance<nb::list>(other) && list_of(r.values).equal(other);
          },
          nb::arg().none(), nb::sig("def __eq__(self, other: object) -> bool"))
      .def("__hash__", [list_of](const view& r) { return nb::hash(nb::tuple(list_of(r.values))); })
      .def("__repr__", [list_of](const view& r) { return nb::repr(list_of(r.values)); })
      .def("__getstate__",
           [](const view& r) {
             return nb::bytes(reinterpret_cast<const char*>(r.values.data()), r.values.size_bytes());
           })
      .def("__setstate__", [](view& self, const nb::bytes& state) {
        if (state.size() % sizeof(T) != 0) throw nb::value_error("this pickle is damaged: its row has another length");
        new (&self) view{state, {reinterpret_cast<const T*>(state.c_str()), state.size() / sizeof(T)}};
      });
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
