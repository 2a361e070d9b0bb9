# SPDX-License-Identifier: MIT
"""The public names of the C++ headers, the parameters of their functions and methods, and their operators, for a comparison with
those of the Python module.

    python parity.py    prints what the module lacks; nothing if it lacks nothing
"""

import inspect
import re
from pathlib import Path

HEADERS = Path(__file__).resolve().parents[1] / "include" / "pipesched"

# Names that are others in Python: keywords, and the exceptions of Python's style.
OTHER_NAMES = {
    "pass": "pass_",
    "from": "from_",
    "schedule_error": "ScheduleError",
    "model_error": "ModelError",
    "no_fit_error": "NoFitError",
}

# Headers without a use in Python, and why.
NO_HEADERS = {
    "support/": "containers and texts that Python has itself",
    "execute/": "runs trainers written in C++; PyTorch runs those written in Python",
    "device/": "see execute/",
    "mpi/": "see execute/",
    "launch/": "see execute/",
    "generate/sink.hpp": "for families written in C++",
    "generate/truncate.hpp": "for families written in C++",
    "generate/row_rule.hpp": "for families written in C++",
    "generate/detail/": "private",
    "render/write.hpp": "for renderers written in C++",
    "render/html_page.hpp": "the parts of render_html()",
    "io/format.hpp": "formatters of fmt; Python has str() and repr()",
}

# Names without a use in Python, and why.
NO_NAMES = {
    "pass_properties": "the functions on passes say the same",
    "pass_table": "the functions on passes say the same",
    "properties": "the functions on passes say the same",
    "max_cell_text": "a length of buffers",
    "write_cell": "str(cell)",
    "op_view": "ops() returns a list",
    "placement_kind_names": "the names of an enum",
    "stage_backward_names": "the names of an enum",
    "rule_names": "the names of an enum",
    "link_busy_names": "the names of an enum",
    "time_unit_names": "the names of an enum",
    "memory_unit_names": "the names of an enum",
    "torch_pass_names": "the names of an enum",
    "chain_of": "schedule.chain()",
    "verified_t": "a tag that saves a second proof",
    "verified": "a tag that saves a second proof",
    "cost_model": "a concept; costs are stage_costs in Python",
    "uniform_costs": "stage_costs with one number for all stages",
    "per_stage": "a number, or a sequence of numbers",
    "optional_per_stage": "a number, a sequence of numbers, or None",
    "pass_pair": "a text such as FB",
    "pass_pair_set": "texts such as FB",
    "parse_pass_pair": "pairs of passes are texts",
    "pass_pair_expected": "pairs of passes are texts",
    "max_pairs": "errors name it",
    "family_limits": "family.parameters and family.even_pp",
    "parameter": "the names of keywords",
    "all_parameters": "the names of keywords",
    "parameter_set": "the names of keywords",
    "all_params": "keywords",
    "family_params": "keywords",
    "schedule_params": "keywords",
    "pipeline_params": "keywords",
    "zb_params": "keywords",
    "interleaved_params": "keywords",
    "hanayo_params": "keywords",
    "chunks_of": "for families written in C++",
    "waves_of": "for families written in C++",
    "is_given": "for families written in C++",
    "keep_taken": "for families written in C++",
    "require": "for families written in C++",
    "require_sizes": "for families written in C++",
    "linear_placement": "for families written in C++",
    "looped_placement": "for families written in C++",
    "vee_placement": "for families written in C++",
    "bidirectional_placement": "for families written in C++",
    "activation_peak": "measure() says it",
    "simulate_again": "overwrites a timeline, and values do not change in Python",
    "no_slot": "None",
    "buffer_bytes": "for transports written in C++",
    "for_each_awaited": "for executors written in C++",
    "describe_waiting": "for executors written in C++",
    "task_name": "str",
    "counts_of": "len() and sum()",
    "from_json": "stage_costs.from_json(), schedule.from_json()",
    "to_json": "stage_costs.to_json(), schedule.to_json()",
}

# Members without a use in Python, and why: Class.member, or .member of any class.
NO_MEMBERS = {
    ".begin": "iter()",
    ".end": "iter()",
    ".size": "len()",
    ".all": "iter()",
    "violation.no_cell": "None",
    "plan_limits.progress": "the argument progress of plan(), which may be True",
    "divide_limits.progress": "the argument progress of divide()",
    "noise_options.progress": "the argument progress of simulate_noise()",
    "family.limits": "family.parameters and family.even_pp",
    "family.emit": "for families written in C++",
    "family.search": "for families written in C++",
    "family.check": "for families written in C++",
    "family.peak": "measure() says it",
    "family.formula": "closed_form_of()",
    "family.unit_bubble": "for the tests of families",
    "family.row": "make_<family>_row()",
    "layer.backward_times": "the fields say it",
} | {
    f"stage_costs.{method}": "called by simulate(); see cost_model"
    for method in (
        "backward_times busy bytes communication for_each_field is_divided is_per_cut keeps_ranks_busy length_of "
        "may_overlap message micro_batches_alike release speed_of transfer transient unit_duration weights"
    ).split()
}

# Parameters that are others in Python. Those of one letter are what a function is of, and are not compared.
OTHER_PARAMETERS = {
    "in": "file",
    "out": "file",
    "read_json.text": "file",
    "read_times.text": "file",
    "read_traces.names_and_texts": "files",
    "divide.where": "what",
    "verify.actions": "file",
    "stage_chain.stage_chain.count": "stages",
    "stage_chain.stage_chain.first": "first_trained",
    "to_string.row": "value",
    "cell.cell.only": "first",
    "to_string.set": "value",
    "to_string.where": "value",
    "describe.number": "rank",
    "find.stage": "which",
    "find.micro": "which",
    "pareto.steps": "problem",
    "pareto.problems": "costs",
    "pareto.bytes": "caps",
    "page_of_front.steps": "costs",
}

# Parameters without a use in Python, and why.
NO_PARAMETERS = {
    "closed_form_of.name": "the schedule says it",
    "describe.message": "describe(p, rank, at) names the buffers of an action",
    "describe.awaited": "describe(p, rank, at) names the buffers of an action",
    "launch_order.rank": "all ranks at once",
    "recognize_family.among": "families of one's own are written in C++",
    "recognize_family.may_make": "for a limit of memory on the schedules that it makes",
    "model_error.model_error.entry": "the library raises it; the attribute path is the entry",
    "model_error.model_error.sentence": "the library raises it; str() is the sentence",
    "no_fit_error.no_fit_error.text": "the library raises it; str() is the text",
    "no_fit_error.no_fit_error.spent": "the library raises it; the attribute evaluations says it",
}


# What Python calls the operators.
OPERATORS = {"==": "__eq__", "<=>": "__lt__", "[]": "__getitem__", "bool": "__bool__"}


def _clean(text):
    text = re.sub(r'R"(\w*)\(.*?\)\1"', '""', text, flags=re.S)
    text = re.sub(r"^\s*#.*(\\\n.*)*$", "", text, flags=re.M)
    text = re.sub(r"//[^\n]*", "", text)
    text = re.sub(r'"(\\.|[^"\\\n])*"', '""', text)
    return re.sub(r"(?<![0-9A-Za-z_])'(\\.|[^'\\\n])+'", "' '", text)


def _without_templates(head):
    before = None
    while before != head:
        before, head = head, re.sub(r"<[^<>]*>", "", head)
    return re.sub(r"\b(template|requires\s+\w+|\[\[\w+(::\w+)?\]\])", "", head)


def _statements(text):
    """(scopes, head, what follows) of every declaration: scopes are the heads of the braces around it."""
    scopes, head = [], ""
    for i, c in enumerate(text):
        if c == "{":
            yield tuple(scopes), " ".join(head.split()), "{"
            scopes.append(" ".join(head.split()))
            head = ""
        elif c == "}":
            scope = scopes.pop()
            if scope.startswith("enum class"):
                yield tuple(scopes), scope, re.findall(r"\w+", head)
            head = ""
        elif c == ";":
            yield tuple(scopes), " ".join(head.split()), ";"
            head = ""
        else:
            head += c


def _type_name(head):
    found = re.search(r"\b(?:struct|class|enum class|concept)\s+(\w+)", _without_templates(head))
    return found and found[1]


def _name(head):
    """The name that a declaration declares, or None."""
    head = _without_templates(re.sub(r"^((public|private|protected):\s*)+", "", head))
    if not head or head.startswith(("friend", "static_assert", "namespace", "using namespace", "return", "inline namespace")):
        return None
    if alias := re.match(r"using (\w+) =", head):
        return alias[1]
    if name := _type_name(head):
        return name
    head = re.split(r"[({=]|\s:\s", head)[0].strip()
    if re.search(r"\boperator\b", head) or "::" in head.split()[-1:][0] if head.split() else True:
        return None
    words = re.findall(r"\w+", head.split(",")[0])
    return words[-1] if len(words) > 1 else None


def public_names(header):
    """name -> members, of the namespace pipesched of one header."""
    names, private = {}, set()
    for scopes, head, after in _statements(_clean(header.read_text())):
        if not scopes or scopes[0] != "namespace pipesched" or any("detail" in s for s in scopes):
            continue
        name = _name(head)
        if len(scopes) == 1 and name:
            names.setdefault(name, set()).update(after if isinstance(after, list) else [])
        if len(scopes) != 2 or not (owner := _type_name(scopes[1])):
            continue
        private |= {owner} if head.startswith("private:") else set()
        if name and name != owner and owner not in private:
            names[owner].add(name)
        if owner not in private and "(" not in head:  # further fields of one declaration
            names[owner] |= set(re.findall(r",\s*(\w+)(?=$|\s*[={,])", _without_templates(head)))
    return names


def all_public_names():
    names = {}
    for header in sorted(HEADERS.rglob("*.hpp")):
        path = header.relative_to(HEADERS).as_posix()
        if "/detail/" in path or any(path.startswith(no) for no in NO_HEADERS):
            continue
        for name, members in public_names(header).items():
            names.setdefault(name, set()).update(members)
    return names


def _is_excused(name, member):
    return any(key in NO_MEMBERS for key in (f"{name}.{member}", f".{member}"))


def missing_from(module):
    """What the module lacks, one line each."""
    lacking = []
    for name, members in sorted(all_public_names().items()):
        if name in NO_NAMES or name.endswith("_family"):
            continue
        value = getattr(module, OTHER_NAMES.get(name, name), None)
        if value is None:
            lacking.append(name)
        elif isinstance(value, type):
            lacking += [f"{name}.{m}" for m in sorted(members) if not hasattr(value, OTHER_NAMES.get(m, m)) and not _is_excused(name, m)]
    return lacking


def _pieces(parameters):
    """The parameters of a list, as texts."""
    pieces, depth = [""], 0
    for c in parameters:
        depth += (c in "<({[") - (c in ">)}]")
        if c == "," and depth == 0:
            pieces.append("")
        else:
            pieces[-1] += c
    return pieces


def _parameters(head):
    """The names of the parameters of a function, without those of one letter."""
    inside = head[head.index("(") + 1 :]
    depth = 1
    for end, c in enumerate(inside):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            break
    names = [re.search(r"[\s&*>](\w{2,})$", re.split(r"[={]", piece)[0].strip()) for piece in _pieces(inside[:end])]
    return [name[1] for name in names if name]


def _declarations():
    """(scopes, head, what follows) of every declaration in the namespace pipesched of the headers that count."""
    for header in sorted(HEADERS.rglob("*.hpp")):
        path = header.relative_to(HEADERS).as_posix()
        if "/detail/" in path or any(path.startswith(no) for no in NO_HEADERS):
            continue
        for scopes, head, after in _statements(_clean(header.read_text())):
            if scopes and scopes[0] == "namespace pipesched" and not any("detail" in s for s in scopes):
                yield scopes, head, after


def public_parameters():
    """function -> names of its parameters, of all overloads."""
    found = {}
    for scopes, head, _ in _declarations():
        name = len(scopes) == 1 and "(" in head and _name(head)
        if name and name not in NO_NAMES:
            found.setdefault(name, set()).update(_parameters(head))
    return found


def _methods():
    """(class, head) of every public member of the classes that Python has, but for its fields."""
    private = set()
    for scopes, head, _ in _declarations():
        owner = len(scopes) == 2 and _type_name(scopes[1])
        private |= {owner} if head.startswith("private:") else set()
        is_function = "(" in re.split(r"(?<![=!<>])=(?!=)", head)[0] and "(*" not in head
        if owner and owner not in private and owner not in NO_NAMES and not owner.endswith("_family") and is_function:
            yield owner, re.sub(r"^((public|private|protected):\s*)+", "", head)


def public_method_parameters():
    """Class.method -> names of its parameters, of all overloads; a constructor has the name of its class."""
    found = {}
    for owner, head in _methods():
        name = re.search(r"(\w+)\s*\(", _without_templates(head))
        if name and "operator" not in head and not head.startswith("friend") and not _is_excused(owner, name[1]):
            found.setdefault(f"{owner}.{name[1]}", set()).update(_parameters(head))
    return found


def public_operators():
    """Class.method of Python -> operator of C++."""
    found = {}
    for owner, head in _methods():
        operator = re.search(r"\boperator\s*([^\s(]+|\(\))\s*\(", head)
        if operator and operator[1] in OPERATORS:
            found[f"{owner}.{OPERATORS[operator[1]]}"] = operator[1]
        elif operator:
            found[f"{owner}.operator{operator[1]}"] = operator[1]
    return found


def _parameters_in_python(function):
    signatures = getattr(function, "__nb_signature__", None)
    if signatures is None:
        return set(inspect.signature(function).parameters)
    return {name for signature, *_ in signatures for name in re.findall(r"[(,] ?(\w+):", signature)}


def _parameters_of_another(name, parameters, there):
    """Those of the parameters of a C++ function that are not among those in Python."""
    for parameter in sorted(parameters):
        other = OTHER_PARAMETERS.get(f"{name}.{parameter}", OTHER_PARAMETERS.get(parameter, parameter))
        if other not in there and f"{name}.{parameter}" not in NO_PARAMETERS:
            yield f"{name}({parameter})"


def parameters_missing_from(module):
    """The parameters that functions of the module lack, one line each."""
    lacking = []
    for name, parameters in sorted(public_parameters().items()):
        function = getattr(module, OTHER_NAMES.get(name, name), None)
        if function is None or isinstance(function, type) or not callable(function):
            continue
        lacking += _parameters_of_another(name, parameters, _parameters_in_python(function))
    return lacking


def method_parameters_missing_from(module):
    """The parameters that methods and constructors of the module lack, one line each."""
    lacking = []
    for name, parameters in sorted(public_method_parameters().items()):
        owner, method = name.split(".")
        owner = getattr(module, OTHER_NAMES.get(owner, owner))
        found = owner.__init__ if owner.__name__ == method else getattr(owner, OTHER_NAMES.get(method, method), None)
        lacking += _parameters_of_another(name, parameters, _parameters_in_python(found) if callable(found) else set())
    return lacking


def operators_missing_from(module):
    """The operators that classes of the module lack, one line each."""
    lacking = []
    for name, operator in sorted(public_operators().items()):
        owner, method = name.split(".")
        owner = getattr(module, OTHER_NAMES.get(owner, owner))
        if getattr(owner, method, None) in (None, getattr(object, method, None)):  # object itself compares by identity
            lacking.append(f"{owner.__name__} {operator}")
    return lacking


def enums_that_differ(module):
    """Enums whose enumerators have another order or other values than in C++."""
    differ = []
    for header in sorted(HEADERS.rglob("*.hpp")):
        for scopes, head, after in _statements(_clean(header.read_text())):
            if scopes == ("namespace pipesched",) and isinstance(after, list):
                enum = getattr(module, OTHER_NAMES.get(_name(head), _name(head)), None)
                if enum is not None and [e.name for e in sorted(enum, key=lambda e: e.value)] != after:
                    differ.append(_name(head))
    return differ


def stale_reasons():
    """Reasons for names and parameters that no header has any more."""
    all_parameters = [*public_parameters().items(), *public_method_parameters().items()]
    parameters = {f"{name}.{p}" for name, of in all_parameters for p in of}
    excused = {name for name in [*NO_PARAMETERS, *OTHER_PARAMETERS] if "." in name}
    return sorted(set(NO_NAMES) - set(all_public_names())) + sorted(excused - parameters)


if __name__ == "__main__":
    import pipesched

    print("\n".join([*missing_from(pipesched), *parameters_missing_from(pipesched), *(f"stale: {name}" for name in stale_reasons())]), end="")
