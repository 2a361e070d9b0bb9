// SPDX-License-Identifier: MIT

#include "record.hpp"

#include <algorithm>
#include <pipesched/support/error.hpp>
#include <pipesched/support/nearest_name.hpp>
#include <set>

#include "extend.hpp"

namespace python {

namespace {

// The value of a record. @throws nb::type_error for anything but a finished instance of the class
const void* address_of(nb::handle self, nb::handle type) {
  if (!PyObject_IsInstance(self.ptr(), type.ptr()) || !nb::inst_ready(self))
    throw nb::type_error("this is a method of another class");
  return nb::inst_ptr<void>(self);
}

nb::object get(const record_entry& entry, nb::handle type, nb::handle self, std::size_t i) {
  return entry.fields[i].get(address_of(self, type), self);
}
nb::tuple values_of(const record_entry& entry, nb::handle type, nb::handle self) {
  nb::list values;
  for (std::size_t i = 0; i < entry.fields.size(); ++i) values.append(get(entry, type, self, i));
  return nb::tuple(values);
}

void set_field(const field_entry& field, void* value, nb::handle from, const char* called) {
  try {
    field.set(value, from);
  } catch (const nb::builtin_exception& e) {  // of refuse()
    const std::string text = std::string(called) + ": " + field.name + " takes " + e.what();
    if (e.type() == nb::exception_type::value_error) throw nb::value_error(text.c_str());
    throw nb::type_error(text.c_str());
  }
}

// All fields of a short record, and of a long one those that differ from a record made without arguments.
std::string repr_of(const record_entry& entry, nb::handle type, nb::handle self) {
  std::string text = entry.name;
  text += '(';
  const bool all = entry.fields.size() <= 4;
  const nb::object usual = type();
  for (std::size_t i = 0; i < entry.fields.size(); ++i) {
    const nb::object value = get(entry, type, self, i);
    if (!all && value.equal(get(entry, type, usual, i))) continue;
    if (text.back() != '(') text += ", ";
    ((text += entry.fields[i].name) += '=') += nb::repr(value).c_str();
  }
  return text + ')';
}

nb::object replaced(const record_entry& entry, nb::handle type, nb::handle self, const nb::kwargs& changes) {
  nb::dict all;
  for (std::size_t i = 0; i < entry.fields.size(); ++i) all[entry.fields[i].name] = get(entry, type, self, i);
  for (const auto& [name, value] : changes) all[name] = value;
  return type(**all);
}

// Adds a method or, if `property` is true, a property.
template <typename F>
void add(nb::handle type, const char* name, const std::string& signature, F&& f, bool property = false,
         const char* doc = nullptr) {
  const std::string whole = "def " + std::string(name) + signature;
  nb::object function = nb::cpp_function(std::forward<F>(f), nb::name(name), nb::scope(type), nb::is_method(),
                                         nb::sig(whole.c_str()), doc ? doc : "");
  if (property) {
    const nb::object make = nb::module_::import_("builtins").attr("property");
    function = make(function, nb::none(), nb::none(), doc ? nb::cast(doc) : nb::none());
  }
  nb::setattr(type, name, function);
}

// True if the type of a field has the name of another field: in a stub it must come before that one, which hides the type.
bool is_hidden_by_field(const record_entry& entry, const field_entry& field) {
  return std::ranges::any_of(entry.fields, [&](const field_entry& other) {
    return &other != &field && field.type().find(other.name) != std::string::npos;
  });
}

}  // namespace

void refuse(const std::string& expected, nb::handle got) {
  const bool is_range = expected.starts_with("an int from"), out_of_range = is_range && nb::isinstance<nb::int_>(got);
  const std::string text = (is_range && !out_of_range ? "an int" : expected) + "; got " + nb::repr(got).c_str();
  if (out_of_range) throw nb::value_error(text.c_str());
  throw nb::type_error(text.c_str());
}

std::string names_of_enum(nb::handle type) {
  std::vector<std::string> names;
  const nb::object members = type.attr("__members__");
  for (nb::handle name : nb::iter(members)) names.push_back(nb::cast<std::string>(name));
  std::string text;
  for (std::size_t i = 0; i < names.size(); ++i)
    text += (i == 0 ? "" : i + 1 < names.size() ? ", " : " or ") + names[i];
  return text;
}

nb::object value_of_name(nb::handle type, nb::handle name) {
  if (!nb::isinstance<nb::str>(name)) return nb::none();
  return type.attr("__members__").attr("get")(name);
}

std::string_view interned(std::string_view text) {
  static auto* all = new std::set<std::string, std::less<>>;
  return *all->emplace(text).first;
}

pass_pair pass_pair_of(nb::handle text) {
  std::string word;
  if (nb::try_cast(text, word))
    if (const auto pair = parse_pass_pair(word)) return *pair;
  refuse(std::string(pass_pair_expected), text);
}

pass_pair_set pass_pair_set_of(nb::handle texts) {
  pass_pair_set set;
  if (!is_list_like(texts)) refuse("Sequence[str]", texts);
  for (nb::handle text : nb::iter(texts)) set.insert(pass_pair_of(text));
  return set;
}

void record_entry::fill(void* value, const nb::args& positions, const nb::kwargs& keywords, const char* called,
                        std::size_t required) const {
  if (positions.size() > fields.size())
    throw nb::type_error(
        pipesched::detail::concat({called, " takes at most ", pipesched::detail::count_text(fields.size(), "value"),
                                   "; got ", positions.size()})
            .c_str());
  for (std::size_t i = 0; i < positions.size(); ++i) set_field(fields[i], value, positions[i], called);
  for (const auto& [key, given] : keywords) {
    const auto word = nb::cast<std::string>(key);
    const auto found = std::ranges::find(fields, word, &field_entry::name);
    const auto at = static_cast<std::size_t>(found - fields.begin());
    if (found == fields.end()) {
      const std::string_view nearest =
          nearest_name(word, fields, [](const field_entry& f) { return std::string_view(f.name); });
      const std::string hint = nearest.empty() ? std::string() : "; did you mean " + std::string(nearest) + "?";
      throw nb::type_error(pipesched::detail::concat({called, " takes no \"", word, "\"", hint}).c_str());
    }
    if (at < positions.size())
      throw nb::type_error(pipesched::detail::concat({called, " got two values for ", word}).c_str());
    set_field(*found, value, given, called);
  }
  for (std::size_t i = positions.size(); i < required; ++i)
    if (!keywords.contains(fields[i].name))
      throw nb::type_error(pipesched::detail::concat({called, " needs ", fields[i].name}).c_str());
}

std::string record_entry::signature() const {
  std::string text = "def __init__(self";
  for (const field_entry& f : fields) text += std::string(", ") + f.name + ": " + f.type() + " = ...";
  return text + ") -> None";
}

void add_members(nb::handle type, const record_entry& entry) {
  const record_entry* e = &entry;
  for (const bool hidden : {true, false})
    for (std::size_t i = 0; i < entry.fields.size(); ++i)
      if (const field_entry& field = entry.fields[i]; is_hidden_by_field(entry, field) == hidden)
        add(
            type, field.name, "(self) -> " + field.type(),
            [e, type, i](nb::handle self) { return get(*e, type, self, i); }, true, field.doc);
  const std::string name = entry.name;
  add(type, "__repr__", "(self) -> str", [e, type](nb::handle self) { return repr_of(*e, type, self); });
  extend(
      type, "__eq__", "(self, other: object) -> bool", "",
      [e, type](nb::handle self, nb::handle other) -> nb::object {
        if (!PyObject_IsInstance(other.ptr(), type.ptr())) return nb::borrow(Py_NotImplemented);
        return nb::cast(values_of(*e, type, self).equal(values_of(*e, type, other)));
      },
      nb::arg("other").none());
  add(type, "__hash__", "(self) -> int", [e, type](nb::handle self) { return nb::hash(values_of(*e, type, self)); });
  add(type, "__reduce__", "(self) -> tuple",
      [e, type](nb::handle self) { return nb::make_tuple(type, values_of(*e, type, self)); });
  for (const char* word : {"replace", "__replace__"})
    add(
        type, word, "(self, **changes: typing.Any) -> " + name,
        [e, type](nb::handle self, const nb::kwargs& changes) { return replaced(*e, type, self, changes); }, false,
        "A copy in which some fields have other values.");
  nb::list names;
  for (const field_entry& f : entry.fields) names.append(f.name);
  if (names.size() > 1) nb::setattr(type, "__match_args__", nb::tuple(names));
}

}  // namespace python
