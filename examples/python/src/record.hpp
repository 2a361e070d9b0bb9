// SPDX-License-Identifier: MIT
#pragma once

// Records: aggregates of the library as Python values with read-only fields. define<T>() makes the class from the list of its
// fields: keywords and positions in the constructor, ==, hash, repr, pickle, and replace(**changes). All but access to a field
// is compiled once for all records.

#include <nanobind/nanobind.h>

#include <concepts>
#include <cstddef>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "convert.hpp"

namespace python {

/// One field of a record: its name, its type in Python's words, and access to it in a value at an address.
struct field_entry {
  const char* name;
  const char* doc;
  std::string (*type)();
  nb::object (*get)(const void* value, nb::handle owner);
  void (*set)(void* value, nb::handle from);
};

/// All that the class of a record needs at run time.
struct record_entry {
  const char* name;
  std::vector<field_entry> fields;

  /// Fills a value at its defaults from the arguments of the constructor.
  /// @throws nb::python_error, a TypeError that names the field, for arguments that do not fit
  /// @param called  the function that was called, for errors
  /// @param required  how many of the first fields have no default
  void fill(void* value, const nb::args& positions, const nb::kwargs& keywords, const char* called,
            std::size_t required = 0) const;
  /// "def __init__(self, forward: float | Sequence[float] = ..., ...) -> None"
  std::string signature() const;
};

/// Adds fields, ==, hash, repr, pickle and replace() to the class. `entry` must live as long as the class.
void add_members(nb::handle type, const record_entry& entry);

namespace detail {

template <typename Member>
struct member_of;
template <typename Owner, typename Type>
struct member_of<Type Owner::*> {
  using owner = Owner;
  using type = Type;
};

}  // namespace detail

/// `field<&violation::rank>("rank")`. A second template argument is the value for which Python has None.
template <auto Member, auto... None>
field_entry field(const char* name, const char* doc = nullptr) {
  using owner = typename detail::member_of<decltype(Member)>::owner;
  using type = typename detail::member_of<decltype(Member)>::type;
  return {name, doc, [] { return type_text<type>() + (sizeof...(None) > 0 ? " | None" : ""); },
          [](const void* value, nb::handle parent) -> nb::object {
            const type& member = static_cast<const owner*>(value)->*Member;
            if constexpr (sizeof...(None) > 0)
              if (((member == None) || ...)) return nb::none();
            return to_python(member, parent);
          },
          [](void* value, nb::handle from) {
            type& member = static_cast<owner*>(value)->*Member;
            if constexpr (sizeof...(None) > 0)
              if (from.is_none()) return void((..., (member = None)));
            from_python(from, member);
          }};
}

/// The function that makes a record from a text alone, such as op("3F12"); null for those without one.
template <typename T>
inline constexpr T (*reader_of_text)(std::string_view) = nullptr;

/// Makes the class of a record. Fields that hold other records need the classes of those first.
template <std::default_initializable T, std::same_as<field_entry>... Fields>
nb::class_<T> define(nb::module_& m, const char* name, const char* doc, Fields... fields) {
  nb::class_<T> type(m, name, doc);
  const auto* entry = new record_entry{name, {fields...}};  // as long as the module
  type.def(
      "__init__",
      [entry](T* self, const nb::args& positions, const nb::kwargs& keywords) {
        if constexpr (reader_of_text<T> != nullptr)
          if (positions.size() == 1 && keywords.size() == 0 && nb::isinstance<nb::str>(positions[0]))
            return void(new (self) T(reader_of_text<T>(nb::cast<std::string_view>(positions[0]))));
        T value{};
        entry->fill(&value, positions, keywords, entry->name);
        new (self) T(std::move(value));
      },
      nb::sig(entry->signature().c_str()));
  add_members(type, *entry);
  return type;
}

}  // namespace python
