# SPDX-License-Identifier: MIT
"""One sentence for a call with wrong arguments: of the functions of the module, in place of the list of signatures that nanobind
prints, and of those in Python, by their annotations."""

import collections.abc
import contextlib
import difflib
import functools
import inspect
import numbers
import os
import re

from . import _pipesched as _c

#: What nanobind begins its text with.
RAW = "incompatible function arguments"
#: The classes of the package that are in Python, for annotations.
CLASSES = {}
#: The argument of a function, in a signature of nanobind: "name: type = default".
PARAMETER = re.compile(r"(?P<name>\*{0,2}\w+)(?:: (?P<type>.*?))?(?P<default> = .*)?", re.S)


def _pieces(text):
    """The parts of a list between its commas, but for those in brackets and quotes."""
    pieces, depth, quoted = [""], 0, False
    for c in text:
        quoted ^= c == "'"
        depth += 0 if quoted else (c in "[(") - (c in "])")
        if c == "," and depth == 0 and not quoted:
            pieces.append("")
        else:
            pieces[-1] += c
    return [piece.strip() for piece in pieces if piece.strip() not in ("", "/", "*")]


def _parameters(signature):
    """(name, type, whether it has a default) of the parameters of "def f(a: int, b: str = 'x') -> None"."""
    inside = signature[signature.index("(") + 1 : signature.rindex(") ->")]
    found = [PARAMETER.fullmatch(piece) for piece in _pieces(inside)]
    return [(p["name"], (p["type"] or "object").replace("pipesched._pipesched.", ""), p["default"] is not None) for p in found]


def _number(of, value):
    return isinstance(value, of) and not isinstance(value, bool)


def _takes(kind, value):
    """True if a parameter of this type takes the value, as far as types tell."""
    alternatives = kind.split(" | ") if "[" not in kind else re.split(r" \| (?![^\[]*\])", kind)
    if len(alternatives) > 1:
        return any(_takes(each, value) for each in alternatives)
    if found := re.fullmatch(r"(?:[\w.]*\.)?(Sequence|Iterable|list)\[(.*)\]", kind):
        if isinstance(value, (str, bytes, collections.abc.Mapping)) or not isinstance(value, collections.abc.Iterable):
            return False
        if isinstance(value, collections.abc.Iterator):  # which a look inside would use up
            return found[1] == "Iterable"
        return all(_takes(found[2], each) for each in value)
    if found := re.fullmatch(r"tuple\[(.*)\]", kind):
        kinds = _pieces(found[1])
        return isinstance(value, collections.abc.Sequence) and len(value) == len(kinds) and all(map(_takes, kinds, value))
    plain = {
        "None": lambda: value is None,
        "bool": lambda: isinstance(value, bool),
        "str": lambda: isinstance(value, str),
        "int": lambda: _number(numbers.Integral, value) and 0 <= value < 2**32,
        "float": lambda: _number(numbers.Real, value),
        "dict": lambda: isinstance(value, collections.abc.Mapping),
        "os.PathLike": lambda: isinstance(value, os.PathLike),
        "IO": lambda: hasattr(value, "read") or hasattr(value, "write"),
    }
    if kind in plain:
        return plain[kind]()
    if kind.startswith(("collections.abc.Callable", "Callable")):
        return callable(value)
    of = getattr(_c, kind, None) or CLASSES.get(kind)
    return isinstance(value, of) if isinstance(of, type) else True


def _shown(kind, value):
    kind = re.sub(r"\b(collections\.abc|typing)\.", "", kind)
    return "an int from 0 to 4294967295" if kind == "int" and _number(numbers.Integral, value) else kind


def _short(value):
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _fault(name, parameters, values, keywords):
    """(how many arguments are right, parameter, its type, value) of the first wrong argument, or (how many, sentence)."""
    if len(values) > len(parameters):
        return -1, f"{name} takes at most {plural(len(parameters), 'value')}; got {len(values)}"
    names = [parameter for parameter, *_ in parameters]
    given = dict(zip(names, values))
    for keyword in keywords:
        if keyword in given:
            return -1, f"{name} got two values for {keyword}"
        if keyword not in names:
            near = difflib.get_close_matches(keyword, names, 1)
            return -1, f'{name} takes no "{keyword}"' + (f"; did you mean {near[0]}?" if near else f"; expected {', '.join(names)}" if names else "")
    given.update(keywords)
    for right, (parameter, kind, has_default) in enumerate(parameters):
        if parameter not in given and not has_default:
            return right, f"{name} needs {parameter}"
        if parameter in given and not _takes(kind, given[parameter]):
            return right, parameter, kind, given[parameter]
    return len(parameters), f"{name} does not take these arguments; got {', '.join(map(_short, given.values()))}"


def sentence(name, signatures, values, keywords):
    """What is wrong with the arguments: of the overload that comes closest, or of all that come as close."""
    faults = [_fault(name, parameters, values, keywords) for parameters in signatures]
    furthest = max(fault[0] for fault in faults)
    return _sentence_of(name, [fault for fault in faults if fault[0] == furthest])


def _sentence_of(name, closest):
    typed = [fault for fault in closest if len(fault) == 4]
    if not typed:
        return closest[0][1]
    value = typed[0][3]
    kinds = list(dict.fromkeys(_shown(kind, value) for _, _, kind, _ in typed))
    names = list(dict.fromkeys(parameter for _, parameter, *_ in typed))
    what = names[0] if len(names) == 1 else f"argument {typed[0][0] + 1}"
    return f"{name}: {what} takes {' | '.join(kinds)}; got {_short(value)}"


def _checked(function, name, is_method, of_property=""):
    """The function, with one sentence for arguments that it does not take."""

    def call(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except TypeError as error:
            if RAW not in str(error):
                raise
        signatures = [_parameters(signature)[is_method:] for signature, *_ in function.__nb_signature__]
        if of_property:
            signatures = [[(of_property, *kind) for _, *kind in parameters] for parameters in signatures]
        raise TypeError(sentence(name, signatures, args[is_method:], kwargs))

    if not of_property:  # a setter has no name
        functools.update_wrapper(call, function, updated=())
    call.__nb_signature__ = function.__nb_signature__
    return call


def checked(function, called=None):
    """A function in Python, which refuses arguments that are not of its annotations before it runs.

    called  the name in errors; default: that of the function
    """
    name, kinds = called or function.__qualname__, inspect.Parameter
    of = list(inspect.signature(function).parameters.values())
    is_method = of[0].name in ("self", "cls")
    named = [p for p in of[is_method:] if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    positions = sum(p.kind == kinds.POSITIONAL_OR_KEYWORD for p in named)
    parameters = [(p.name, p.annotation if isinstance(p.annotation, str) else "object", p.default is not kinds.empty) for p in named]
    names = {p.name for p in named}
    takes_others = of[-1].kind == kinds.VAR_KEYWORD

    @functools.wraps(function)
    def call(*args, **kwargs):
        values = args[is_method:]
        if len(values) > positions:
            raise TypeError(f"{name} takes at most {plural(positions, 'value')} without a name; got {len(values)}")
        own = {key: value for key, value in kwargs.items() if key in names or not takes_others}
        fault = _fault(name, parameters, values, own)
        if fault[0] < len(parameters):
            raise TypeError(_sentence_of(name, [fault]))
        return function(*args, **kwargs)

    return call


@contextlib.contextmanager
def called_as(name):
    """Errors of a family's methods, with the name of the function that called them."""
    try:
        yield
    except (TypeError, ValueError) as error:
        text = re.sub(r"^family\.(make|place)\b", name, str(error))
        if text == str(error):
            raise
        raise type(error)(text) from None


def plural(n, noun):
    """"1 rank", "2 ranks", "3 micro-batches", "4 families"."""
    many = noun[:-1] + "ies" if noun.endswith("y") else noun + ("es" if noun.endswith("ch") else "s")
    return f"{n} {noun if n == 1 else many}"


def _members(of):
    return [(name, value) for name, value in vars(of).items() if not name.startswith("__")]


def install():
    """Replaces the functions of the module, and the methods of its classes."""
    for name, value in _members(_c):
        if hasattr(value, "__nb_signature__"):
            setattr(_c, name, _checked(value, name.lstrip("_"), False))
        elif isinstance(value, type):
            for member, method in _members(value):
                function = getattr(method, "__func__", method)  # of a static method
                if hasattr(getattr(method, "fset", None), "__nb_signature__"):
                    setattr(value, member, method.setter(_checked(method.fset, name, True, member)))
                elif type(function).__name__ == "nb_method":
                    setattr(value, member, _checked(function, f"{name}.{member}", True))
                elif hasattr(function, "__nb_signature__"):
                    setattr(value, member, staticmethod(_checked(function, f"{name}.{member}", False)))
