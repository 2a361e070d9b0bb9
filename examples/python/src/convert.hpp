// SPDX-License-Identifier: MIT
#pragma once

// Fields of records from and to Python. Lists become tuples, as records do not change; texts stand for pairs of passes and for
// values of enumerations; a cost by stage is a number or a sequence of numbers.

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>

#include <array>
#include <concepts>
#include <cstddef>
#include <limits>
#include <optional>
#include <pipesched/core/schedule.hpp>
#include <pipesched/cost/pass_pairs.hpp>
#include <pipesched/cost/per_stage.hpp>
#include <pipesched/support/fixed_string.hpp>
#include <pipesched/support/keyed_list.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace nb = nanobind;

namespace python {

using namespace pipesched;

/// A view of a text that lives as long as the program, for fields that are views.
std::string_view interned(std::string_view text);

/// "a str; got 3", raised as a TypeError; for an int out of range a ValueError.
[[noreturn]] void refuse(const std::string& expected, nb::handle got);

pass_pair pass_pair_of(nb::handle text);
pass_pair_set pass_pair_set_of(nb::handle texts);

namespace detail {

template <typename T>
inline constexpr bool is_list = false;
template <typename T>
inline constexpr bool is_list<std::vector<T>> = true;
template <typename T, std::size_t N>
inline constexpr bool is_list<std::array<T, N>> = true;
template <typename T>
inline constexpr bool is_list<keyed_list<T>> = true;
template <typename T>
inline constexpr bool is_optional = false;
template <typename T>
inline constexpr bool is_optional<std::optional<T>> = true;
template <typename T>
inline constexpr bool is_name = std::is_same_v<T, std::string_view> || std::is_same_v<T, std::string>;
template <std::size_t N>
inline constexpr bool is_name<fixed_string<N>> = true;

template <typename T>
using element_of = std::remove_cvref_t<decltype(*std::declval<const T&>().begin())>;

// A class of this module, as opposed to a number, a text or a list.
template <typename T>
inline constexpr bool is_class = nb::detail::is_base_caster_v<nb::detail::make_caster<T>>;

}  // namespace detail

/// True for what a list can be made of: anything that is iterable but texts and mappings.
inline bool is_list_like(nb::handle from) {
  return nb::hasattr(from, "__iter__") && !nb::isinstance<nb::str>(from) && !nb::isinstance<nb::dict>(from);
}

/// The names of an enumeration: "none, s, ms or us".
std::string names_of_enum(nb::handle type);
/// Its value of a name; none for any other object.
nb::object value_of_name(nb::handle type, nb::handle name);

/// The type of a field in Python's words, for signatures. Classes must have been made.
template <typename T>
std::string type_text() {
  using namespace detail;
  if constexpr (std::is_same_v<T, nb::object>)
    return "object";
  else if constexpr (std::is_same_v<T, bool>)
    return "bool";
  else if constexpr (std::is_integral_v<T>)
    return "int";
  else if constexpr (std::is_floating_point_v<T>)
    return "float";
  else if constexpr (is_name<T> || std::is_same_v<T, pass_pair>)
    return "str";
  else if constexpr (std::is_same_v<T, pass_pair_set>)
    return "Sequence[str]";
  else if constexpr (std::is_same_v<T, per_stage>)
    return "float | Sequence[float]";
  else if constexpr (std::is_same_v<T, optional_per_stage>)
    return "float | Sequence[float] | None";
  else if constexpr (is_optional<T>)
    return type_text<typename T::value_type>() + " | None";
  else if constexpr (std::is_enum_v<T>)
    return nb::cast<std::string>(nb::type<T>().attr("__name__")) + " | str";
  else if constexpr (is_list<T>)
    return "Sequence[" + type_text<element_of<T>>() + "]";
  else if (const nb::handle type = nb::type<T>(); type.is_valid())
    return nb::cast<std::string>(type.attr("__name__"));
  else
    return "Callable";
}

/// @param owner  of the value: it stays alive while a part of it that is not copied is in use
template <typename T>
nb::object to_python(const T& value, nb::handle owner) {
  using namespace detail;
  if constexpr (std::is_same_v<T, pass_pair>) {
    return nb::cast(to_string(value));
  } else if constexpr (std::is_same_v<T, pass_pair_set>) {
    return to_python(value.pairs(), owner);
  } else if constexpr (std::is_same_v<T, per_stage>) {
    return value.values().size() == 1 ? nb::cast(value.values()[0]) : to_python(value.values(), owner);
  } else if constexpr (std::is_same_v<T, optional_per_stage> || is_optional<T>) {
    return value.has_value() ? to_python(*value, owner) : nb::none();
  } else if constexpr (is_list<T>) {
    nb::list all;
    for (const auto& element : value) all.append(to_python(static_cast<element_of<T>>(element), nb::handle()));
    return nb::tuple(all);
  } else if constexpr (is_name<T>) {
    return nb::cast(std::string_view(value));
  } else if constexpr (is_class<T> && !std::is_trivially_copyable_v<T>) {
    return owner.is_valid() ? nb::inst_reference(nb::type<T>(), const_cast<T*>(&value), owner) : nb::cast(value);
  } else {
    return nb::cast(value);
  }
}

/// @throws nb::python_error, a TypeError or ValueError, if it does not fit
template <typename T>
void from_python(nb::handle from, T& value) {
  using namespace detail;
  if constexpr (std::is_same_v<T, nb::object>) {
    value = nb::borrow(from);
  } else if constexpr (std::is_same_v<T, pass_pair>) {
    value = pass_pair_of(from);
  } else if constexpr (std::is_same_v<T, pass_pair_set>) {
    value = pass_pair_set_of(from);
  } else if constexpr (std::is_same_v<T, per_stage>) {
    std::vector<double> numbers(1);
    if (double same = 0; nb::try_cast(from, same))
      numbers[0] = same;
    else if (!is_list_like(from))
      refuse(type_text<T>(), from);
    else
      from_python(from, numbers);
    value = per_stage(std::move(numbers));
  } else if constexpr (std::is_same_v<T, optional_per_stage>) {
    value.reset();
    if (from.is_none()) return;
    per_stage numbers;
    from_python(from, numbers);
    value = optional_per_stage(std::move(numbers));
  } else if constexpr (is_optional<T>) {
    value.reset();
    if (!from.is_none()) from_python(from, value.emplace());
  } else if constexpr (is_list<T>) {
    std::vector<element_of<T>> all;
    if (!is_list_like(from)) refuse(type_text<T>(), from);
    for (nb::handle element : nb::iter(from)) {
      element_of<T> one{};
      from_python(element, one);
      all.push_back(std::move(one));
    }
    if constexpr (requires { value.fill({}); }) {
      if (all.size() != value.size()) refuse("a sequence of " + std::to_string(value.size()), from);
      for (std::size_t i = 0; i < value.size(); ++i) value[i] = std::move(all[i]);
    } else {
      value = std::move(all);
    }
  } else if constexpr (is_name<T>) {
    std::string text;
    if (!nb::try_cast(from, text)) refuse("str", from);
    if constexpr (std::is_same_v<T, std::string_view>)
      value = interned(text);
    else
      value = T(text);
  } else if constexpr (std::is_enum_v<T>) {
    if (nb::try_cast(from, value)) return;
    const nb::object named = value_of_name(nb::type<T>(), from);
    if (named.is_none()) refuse(names_of_enum(nb::type<T>()), from);
    value = nb::cast<T>(named);
  } else {
    if (nb::try_cast(from, value)) return;
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>)
      refuse("an int from " + std::to_string(std::numeric_limits<T>::min()) + " to " +
                 std::to_string(std::numeric_limits<T>::max()),
             from);
    else
      refuse(type_text<T>(), from);
  }
}

}  // namespace python
