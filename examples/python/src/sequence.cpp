// SPDX-License-Identifier: MIT

#include "sequence.hpp"

#include <string>

#include "extend.hpp"

namespace python {

namespace {

class sequence_class {
 public:
  sequence_class(nb::handle type, const sequence_entry& entry) : type_(type), entry_(entry) {}

  std::size_t size(nb::handle self) const {
    if (!PyObject_IsInstance(self.ptr(), type_.ptr()) || !nb::inst_ready(self))
      throw nb::type_error("this is a method of another class");
    return entry_.size(self);
  }
  nb::object at(nb::handle self, nb::handle index) const {
    const std::size_t length = size(self);
    if (!PyIndex_Check(index.ptr())) {
      const std::string name = nb::cast<std::string>(type_.attr("__name__"));
      throw nb::type_error(
          (name + "[...] takes an int or a slice; got " + nb::cast<std::string>(nb::repr(index))).c_str());
    }
    const Py_ssize_t place = PyNumber_AsSsize_t(index.ptr(), nullptr);  // an int that is too large: the largest
    return entry_.at(self, place_of(place, length, entry_.index));
  }
  nb::list slice(nb::handle self, const nb::slice& which) const {
    const auto [start, stop, step, length] = which.compute(size(self));
    nb::list chosen;
    for (std::size_t k = 0; k < length; ++k)
      chosen.append(entry_.at(self, static_cast<std::size_t>(start + static_cast<Py_ssize_t>(k) * step)));
    return chosen;
  }
  std::size_t count(nb::handle self, nb::handle value) const {
    const std::size_t length = size(self);
    std::size_t found = 0;
    for (std::size_t i = 0; i < length; ++i) found += entry_.at(self, i).equal(value) ? 1 : 0;
    return found;
  }
  // The first place of the value from `start` to before `stop`; `stop` without one.
  std::size_t find(nb::handle self, nb::handle value, std::size_t start, std::size_t stop) const {
    for (; start < stop; ++start)
      if (entry_.at(self, start).equal(value)) return start;
    return stop;
  }
  std::size_t index(nb::handle self, nb::handle value, std::int64_t start, std::int64_t stop) const {
    const std::size_t length = size(self), end = clamped(stop, length),
                      found = find(self, value, clamped(start, length), end);
    if (found >= end)
      throw nb::value_error(
          (nb::cast<std::string>(nb::repr(value)) + " is not in this " + nb::cast<std::string>(type_.attr("__name__")))
              .c_str());
    return found;
  }

 private:
  // An end of a stretch, as slices have it.
  static std::size_t clamped(std::int64_t end, std::size_t size) {
    const auto length = static_cast<std::int64_t>(size);
    if (end < 0) end += length;
    return static_cast<std::size_t>(end < 0 ? 0 : end > length ? length : end);
  }

  nb::handle type_;
  sequence_entry entry_;
};

}  // namespace

void add_sequence(nb::handle type, const sequence_entry& entry) {
  const auto* c = new sequence_class(type, entry);  // as long as the module
  const std::string element = entry.element;
  extend(type, "__len__", "(self) -> int", "", [c](nb::handle self) { return c->size(self); });
  extend(type, "__getitem__", "(self, index: slice) -> list[" + element + "]", "",
         [c](nb::handle self, const nb::slice& which) { return c->slice(self, which); });
  extend(type, "__getitem__", "(self, index: typing.SupportsIndex) -> " + element, "",
         [c](nb::handle self, nb::handle index) { return c->at(self, index); });
  extend(type, "__iter__", "(self) -> collections.abc.Iterator[" + element + "]", "", [c](nb::handle self) {
    c->size(self);
    return nb::steal(PySeqIter_New(self.ptr()));
  });
  extend(
      type, "__contains__", "(self, value: object) -> bool", "",
      [c](nb::handle self, nb::handle value) {
        const std::size_t length = c->size(self);
        return c->find(self, value, 0, length) < length;
      },
      nb::arg().none());
  extend(
      type, "count", "(self, value: object) -> int", "The number of elements that are equal to the value.",
      [c](nb::handle self, nb::handle value) { return c->count(self, value); }, nb::arg("value").none());
  extend(
      type, "index", "(self, value: object, start: int = 0, stop: int | None = None) -> int",
      "The place of the first element that is equal to the value. Raises ValueError if none is.",
      [c](nb::handle self, nb::handle value, std::int64_t start, nb::handle stop) {
        return c->index(self, value, start, stop.is_none() ? PY_SSIZE_T_MAX : nb::cast<std::int64_t>(stop));
      },
      nb::arg("value").none(), nb::arg("start") = 0, nb::arg("stop") = nb::none());
  nb::module_::import_("collections.abc").attr("Sequence").attr("register")(type);
}

}  // namespace python
