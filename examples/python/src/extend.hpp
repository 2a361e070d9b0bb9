// SPDX-License-Identifier: MIT
#pragma once

// Methods for classes that another source has made, so that only the source that needs a header of the library includes it.

#include <nanobind/nanobind.h>

#include <string>
#include <utility>

namespace nb = nanobind;

namespace python {

/// Adds a method to a class of another source: `signature` is "(self) -> str". Without a self it is a static method.
template <typename F, typename... Extra>
void extend(nb::handle type, const char* method, const std::string& signature, const char* doc, F&& f,
            const Extra&... extra) {
  const std::string whole = "def " + (method + signature);
  if (signature.starts_with("(self")) {
    nb::setattr(type, method,
                nb::cpp_function(std::forward<F>(f), nb::name(method), nb::scope(type), nb::is_method(),
                                 nb::sig(whole.c_str()), doc, extra...));
  } else {
    const nb::object function =
        nb::cpp_function(std::forward<F>(f), nb::name(method), nb::scope(type), nb::sig(whole.c_str()), doc);
    nb::setattr(type, method, nb::module_::import_("builtins").attr("staticmethod")(function));
  }
}

/// Lets the class refuse calls with a sentence that says where its values come from.
inline void refuse_construction(nb::handle type, const char* sentence) {
  extend(type, "__init__", "(self, *args, **kwargs) -> None", "",
         [sentence](nb::handle, const nb::args&, const nb::kwargs&) { throw nb::type_error(sentence); });
}

}  // namespace python
