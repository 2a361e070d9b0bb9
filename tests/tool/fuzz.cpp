// SPDX-License-Identifier: MIT
// A fuzzer over the command line: random commands, options, values, files and suffixes. Run N depends on N alone.
//
//   tool_fuzzer TOOL RUNS [FIRST]
//
// Every run must end with 0, 1 or 2 within 1 GiB and 5 seconds of processor time (30 in a debug build); with 2 it prints one
// sentence on standard error and leaves no file of its own.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <pipesched/generate/families.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace fs = std::filesystem;

namespace {

using words = std::vector<std::string>;

constexpr rlim_t max_memory = rlim_t{1} << 30;
#ifdef NDEBUG
constexpr rlim_t max_seconds = 5;
#else
constexpr rlim_t max_seconds = 30;
#endif

std::string content(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string in_words(const words& command) {
  std::string text;
  for (const std::string& word : command) {
    text += " '";
    for (char c : word) text += c >= ' ' && c <= '~' && c != '\'' ? std::string(1, c) : "?";
    text += '\'';
  }
  return text;
}

struct outcome {
  int code = -1;  // -1: ended by a signal
  int signal = 0;
  long peak_kib = 0;
  std::string out, err;
};

// Runs the tool in this folder, with its output in files of the folder above.
outcome run(const std::string& tool, const words& arguments, const std::string& input) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit memory{max_memory, max_memory}, seconds{max_seconds, max_seconds}, none{0, 0};
    setrlimit(RLIMIT_AS, &memory);
    setrlimit(RLIMIT_CPU, &seconds);
    setrlimit(RLIMIT_CORE, &none);
    const auto redirect = [](int to, const char* file, int flags) {
      const int from = open(file, flags, 0600);
      if (from < 0 || dup2(from, to) < 0) _exit(120);
      close(from);
    };
    redirect(STDIN_FILENO, input.c_str(), O_RDONLY);
    redirect(STDOUT_FILENO, "../out", O_WRONLY | O_CREAT | O_TRUNC);
    redirect(STDERR_FILENO, "../err", O_WRONLY | O_CREAT | O_TRUNC);
    std::vector<char*> pointers{const_cast<char*>(tool.c_str())};
    for (const std::string& word : arguments) pointers.push_back(const_cast<char*>(word.c_str()));
    pointers.push_back(nullptr);
    execv(tool.c_str(), pointers.data());
    _exit(121);
  }
  int status = 0;
  rusage used{};
  if (child < 0 || wait4(child, &status, 0, &used) != child) throw std::runtime_error(std::strerror(errno));
  outcome o;
  if (WIFEXITED(status)) o.code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) o.signal = WTERMSIG(status);
  o.peak_kib = used.ru_maxrss;
  o.out = content("../out");
  o.err = content("../err");
  return o;
}

class fuzzer {
 private:
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }
  bool chance(std::size_t one_in) { return below(one_in) == 0; }
  template <typename Range>
  const auto& pick(const Range& range) {
    return range[below(std::size(range))];
  }

 public:
  explicit fuzzer(std::string tool) : tool_(std::move(tool)) {
    const std::array<words, 11> made = {{
        {"generate", "1f1b", "--pp", "3", "--micro", "5", "-o", "a.json"},
        {"generate", "dualpipe", "--pp", "4", "--micro", "8", "-o", "b.json"},
        {"generate", "zbv", "--pp", "3", "--micro", "4", "-o", "c.csv"},
        {"generate", "hanayo", "--pp", "2", "--micro", "4", "-o", "d.json"},
        {"generate", "chimera", "--pp", "4", "--micro", "4", "--forward-only", "-o", "e.json"},
        {"lower", "c.csv", "-o", "f.csv"},
        {"lower", "a.json", "-o", "g.json"},
        {"generate", "v_min", "--pp", "4", "--micro", "6", "-o", "h.json"},
        {"simulate", "a.json", "-o", "i.json"},
        {"simulate", "a.json", "-o", "j.svg"},
        {"generate", "interleaved_1f1b", "--pp", "2", "--micro", "4", "-o", "k.csv"},
    }};
    for (const words& command : made)
      if (run(tool_, command, "/dev/null").code != 0) throw std::runtime_error("cannot make" + in_words(command));
    std::ofstream("costs.json") << R"({"forward": 1.5, "backward": [2, 3], "transfer": 0.25})";
    std::ofstream("more_costs.json") << R"({"forward": [1, 2, 3, 4], "backward_input": 1.25, "backward_weight": 0.5,
      "overlap_efficiency": 0.75, "communication": {"forward": [0.1, 0.2, 0.3, 0.4]}, "message_bytes": 1e9, "bandwidth": 5e9,
      "memory": {"kept_by_forward": 2e9, "weights": 1e10}, "pairs": [{"ops": "FF", "time": 3}], "allowed_pairs": ["FB"]})";
    std::ofstream("times.json") << R"({"time_unit": "ms", "events": [
      {"rank": 0, "action": "0F0", "start": 0, "end": 2}, {"rank": 1, "action": "1F0", "start": 2.5, "end": 5},
      {"rank": 1, "action": "1B0", "start": 5, "end": 9}, {"rank": 0, "action": "PP:0B0", "start": 9.5, "end": 13}]})";
    std::ofstream("model.json") << R"({"format": "pipesched.model", "version": 1, "time_unit": "ms",
      "layers": [{"kind": "embedding", "forward": 0.1, "backward": 0.2, "weights": 3e9, "message": 6e7},
        {"kind": "moe", "count": 5, "forward": 2.28, "backward_input": 3.49, "backward_weight": 0.16, "recompute": 2,
         "kept": 1e9, "kept_input": 1e7, "context": 1e9, "transient": {"F": 1e8, "B": 2e8, "R": 1e8}, "weights": 1e9, "message": 6e7},
        {"kind": "head", "forward": 2.5, "backward": 5}],
      "pairs": [{"kinds": ["moe", "moe"], "ops": "FB", "time": 3.9}], "allowed_pairs": ["FB", "FI"],
      "ranks": [{"speed": 1, "memory": 8e10}],
      "links": [{"from": 0, "to": 1, "latency": 0.01, "bandwidth": 5e10, "busy": "none"}, {"latency": 0.02, "busy": "both"}]})";
    for (const auto& entry : fs::directory_iterator("."))
      files_.emplace_back(entry.path().filename().string(), content(entry.path()));
    std::sort(files_.begin(), files_.end());
  }

  // The number of faults of one run, with what is wrong on standard output.
  int check(std::uint64_t number) {
    random_.seed(number);
    prepare_files();
    const words command = make_command();
    const std::string input = chance(4) ? "/dev/null" : pick(files_).first;
    const auto before = names();
    const outcome o = run(tool_, command, input);
    std::string wrong;
    const auto expect = [&](bool holds, const std::string& what) {
      if (!holds) wrong += (wrong.empty() ? "" : "; ") + what;
    };
    expect(o.code >= 0 && o.code <= 2,
           o.signal != 0 ? "signal " + std::to_string(o.signal) : "exit code " + std::to_string(o.code));
    expect(o.peak_kib <= static_cast<long>(max_memory / 1024), std::to_string(o.peak_kib) + " KiB");
    const auto lines = std::count(o.err.begin(), o.err.end(), '\n');
    expect(o.err.empty() || o.err.back() == '\n', "standard error ends within a line");
    for (std::size_t at = 0; at < o.err.size(); at = o.err.find('\n', at) + 1)
      expect(o.err.compare(at, 11, "pipesched: ") == 0, "a line of standard error without the tool's name");
    const auto after = names();
    if (o.code == 2) {
      expect(lines == 1, std::to_string(lines) + " lines on standard error");
      expect(o.out.empty() || command[0] == "compare", "output beside the error");
      expect(before == after, "a new file beside the error");
    }
    if (o.code == 0) expect_formats(expect);
    if (o.code >= 0 && o.code <= 2) ++counts[static_cast<std::size_t>(o.code)];
    peak_kib = std::max(peak_kib, o.peak_kib);
    for (const std::string& name : after)
      if (!std::binary_search(before.begin(), before.end(), name)) fs::remove_all(name);
    if (wrong.empty()) return 0;
    std::cout << "run " << number << ':' << in_words(command) << " <" << input << ": " << wrong << '\n'
              << o.err.substr(0, 500) << std::flush;
    return 1;
  }

  std::array<std::uint64_t, 3> counts{};
  long peak_kib = 0;

 private:
  static std::vector<std::string> names() {
    std::vector<std::string> all;
    for (const auto& entry : fs::directory_iterator(".")) all.push_back(entry.path().filename().string());
    std::sort(all.begin(), all.end());
    return all;
  }

  // Files as they were made, but one that is cut, or has bytes or a piece changed.
  void prepare_files() {
    for (const auto& [name, text] : files_)
      if (name == changed_) std::ofstream(name, std::ios::binary) << text;
    auto [name, text] = pick(files_);
    changed_ = name;
    const std::size_t way = below(6);
    if (way == 0) text.resize(below(text.size() + 1));
    if (way == 1)
      for (std::size_t n = 1 + below(4); n > 0 && !text.empty(); --n)
        text[below(text.size())] = static_cast<char>(below(256));
    if (way == 2 && !text.empty()) {  // digits, so that the text still parses
      for (std::size_t n = 1 + below(6); n > 0; --n)
        if (char& c = text[below(text.size())]; c >= '0' && c <= '9') c = static_cast<char>('0' + below(10));
    }
    if (way == 3) {  // a piece twice
      const std::size_t from = below(text.size() + 1), size = below(200);
      text.insert(below(text.size() + 1), text.substr(from, size));
    }
    if (way == 4) {  // a large number
      const std::size_t digit = text.find_first_of("123456789", below(text.size() + 1));
      if (digit != text.npos) text.insert(digit, pick(large_numbers));
    }
    std::ofstream(name, std::ios::binary | std::ios::trunc) << text;
  }

  template <typename Expect>
  void expect_formats(Expect&& expect) const {
    const auto begins = [&](const char* file, const char* with) {
      std::error_code ignored;
      if (fs::exists(file, ignored))
        expect(content(file).starts_with(with), std::string(file) + " holds another format");
    };
    begins("new.svg", "<svg ");
    begins("new.html", "<!doctype html>");
    begins("new.trace.json", "{");
  }

  // Values that options take, and some that they do not.
  std::string whole_number() {
    if (!chance(14)) return std::to_string(1 + below(chance(3) ? 40 : 9));
    return pick(odd_numbers);
  }
  std::string real_number() {
    if (!chance(14)) return pick(times);
    return pick(odd_numbers);
  }
  std::string family() {
    static const words all = [] {
      words names;
      for (const pipesched::family& f : pipesched::families) names.emplace_back(f.name);
      return names;
    }();
    return chance(12) ? mangled(pick(all)) : pick(all);
  }
  std::string file() {
    if (chance(16)) return pick(odd_files);
    if (chance(2)) return changed_;
    const std::string& any = pick(files_).first;
    const std::string& name = any.size() == 6 ? any : pick(files_).first;  // schedules have short names
    return chance(20) ? mangled(name) : name;
  }
  std::string new_file() {
    static const words all = {"new.json", "new.csv", "new.svg", "new.html", "new.trace.json",
                              "new.txt",  "new",     "-",       "/dev/null"};
    return chance(12) ? pick(odd_files) : pick(all);
  }
  std::string mangled(std::string text) {
    for (std::size_t n = 1 + below(2); n > 0; --n) {
      const std::size_t at = below(text.size() + 1);
      const char c = static_cast<char>(chance(4) ? 1 + below(255) : 'a' + below(26));
      if (chance(3) && at < text.size())
        text.erase(at, 1);
      else
        text.insert(at, 1, c);
    }
    return text;
  }

  void add(words& to, const std::string& option, const std::string& value) {
    if (chance(8)) {
      to.push_back(option + "=" + value);
    } else {
      to.push_back(option);
      if (!chance(60)) to.push_back(value);
    }
  }

  // Many ranks have few micro-batches, so that a run ends soon; DualPipe's rule takes as long as for 2 pp micro-batches.
  void add_sizes(words& to) {
    const bool many_ranks = chance(30) && to[0] != "compare" && !to.back().starts_with("dualpipe");
    if (!chance(40)) add(to, "--pp", many_ranks ? pick(rank_limits) : whole_number());
    if (!chance(40)) add(to, "--micro", many_ranks ? std::to_string(1 + below(3)) : whole_number());
    if (chance(8)) to.push_back("--forward-only");
  }
  void add_parameters(words& to) {
    if (chance(16)) add(to, "--chunks", whole_number());
    if (chance(24)) add(to, "--group-size", whole_number());
    if (chance(24)) add(to, "--waves", whole_number());
    if (chance(20)) add(to, "--memory-limit", real_number());
    if (chance(20)) to.push_back("--overlap");
    if (chance(20)) to.push_back("--extra-warm-up");
    if (chance(20)) add(to, "--max-memory", real_number());
  }
  void add_costs(words& to) {
    if (chance(6)) add(to, "--costs", chance(3) ? "deepseek_v3" : chance(2) ? "costs.json" : file());
    for (const char* option :
         {"--forward", "--backward", "--backward-input", "--backward-weight", "--overlapped", "--transfer"})
      if (chance(8)) add(to, option, real_number());
  }
  // So few that a search for the best partition ends soon.
  void add_few(words& to) {
    if (!chance(40)) add(to, "--pp", chance(14) ? pick(odd_numbers) : std::to_string(1 + below(4)));
    if (!chance(40)) add(to, "--micro", chance(14) ? pick(odd_numbers) : std::to_string(1 + below(6)));
    if (chance(8)) to.push_back("--forward-only");
  }
  std::string stages() {
    static const words all = {"0",           "1",   "0,1", "1,0", "0,0", "3",   "0,",  ",", "-1",
                              "99999999999", "all", "1/2", "2/4", "0/3", "3/2", "1/0", "/", "1/2/3"};
    return chance(20) ? mangled(pick(all)) : pick(all);
  }
  void add_transforms(words& to) {
    if (chance(4)) add(to, "--recompute", chance(2) ? "all" : stages());
    if (chance(8)) add(to, "--freeze", stages());
    if (chance(12)) to.push_back("--recompute-inside");
    if (chance(8)) to.push_back("--place-recompute");
    if (chance(12)) add(to, "--first-whole", whole_number());
  }
  void add_memory(words& to) {
    static const words all = {"80e9", "80GB", "74GiB", "5e9", "1",    "1kB", "1e400",
                              "0",    "GB",   "1e",    "1e+", "9TiB", "-1",  ""};
    if (chance(3)) add(to, "--memory", pick(all));
  }
  void add_model(words& to) {
    static const words names = {"gemma_h1536_s4096_v256k", "deepseek_h2048_s4096_v131k", "deepseek_v3"};
    add(to, "--model", chance(3) ? file() : chance(4) ? pick(names) : "model.json");
  }
  void add_partition(words& to) {
    static const words all = {"uniform",      "best", "best", "4,3", "7",   "1,2,3,1", "Ett|t*3L",     "Et|tt|t|tL",
                              "Et*2(t|)*3,L", "E|",   "(",    "t*",  "9,9", "0,7",     "4294967295,1", ","};
    if (!chance(3)) add(to, "--partition", chance(12) ? mangled(pick(all)) : pick(all));
  }
  void add_noise(words& to) {
    static const words draws = {"1", "7", "200", "0", "-1", "1.5", "10000001"};
    if (!chance(6)) return;
    add(to, "--noise", real_number());
    if (!chance(20)) add(to, "--draws", pick(draws));
    if (chance(3)) add(to, "--seed", whole_number());
  }
  // A format, a file, both that agree, or both at random.
  void add_output(words& to, const words& formats) {
    const std::string& format = pick(formats);
    const std::size_t way = below(8);
    if (way < 3 || way == 6) add(to, "--format", chance(10) ? mangled(format) : format);
    if (way == 3) add(to, "-o", "new" + suffix_of(format));
    if (way == 4 || way == 6) add(to, "--output", new_file());
    if (way == 5) add(to, "--format", format), add(to, "--output", "new" + suffix_of(format));
    if (chance(24)) add(to, "--colour", chance(4) ? "blue" : "always");
  }
  static std::string suffix_of(const std::string& format) {
    return format == "text" || format == "grid" ? ".txt" : format == "trace" ? ".trace.json" : "." + format;
  }

  words make_command() {
    words c;
    switch (below(14)) {
      case 0:
        c = {"generate", family()};
        add_sizes(c), add_parameters(c);
        if (chance(8)) add_costs(c);
        add_output(c, {"json", "csv", "text", "grid"});
        break;
      case 1: c = {"verify", file()}; break;
      case 2:
        c = {"convert", file(), new_file()};
        if (chance(3)) add_output(c, {"json", "csv"});
        break;
      case 3:
        c = {"lower", file()};
        add_output(c, {"json", "csv"});
        if (chance(4)) add(c, "--depth", whole_number());
        if (chance(6)) c.push_back("--no-waits");
        if (chance(12)) c.push_back("--waits");
        break;
      case 4:
        c = {"simulate", "--family", family()};
        add_sizes(c), add_parameters(c), add_costs(c), add_noise(c);
        add_output(c, {"text", "json", "svg", "html", "trace"});
        break;
      case 5:
        c = {"simulate", file()};
        add_costs(c), add_noise(c);
        add_output(c, {"text", "json", "svg", "html", "trace"});
        if (chance(10)) add_sizes(c);
        break;
      case 6:
        c = {"compare"};
        add_sizes(c), add_parameters(c), add_costs(c), add_noise(c);
        if (!chance(4)) add(c, "--families", family() + "," + family());
        add_output(c, {"text", "json", "html"});
        break;
      case 7:
        c = {"divide"};
        add_model(c), add(c, "--family", family()), add_few(c), add_parameters(c), add_transforms(c), add_memory(c);
        add(c, "--evaluations", chance(10) ? pick(odd_counts) : std::to_string(1 + below(200)));
        if (chance(4)) add(c, "--seed", whole_number());
        add_output(c, {"text", "json", "layout"});
        break;
      case 8:
        c = {"simulate", "--family", family()};
        add_model(c), add_few(c), add_parameters(c), add_partition(c), add_transforms(c), add_memory(c);
        add_output(c, {"text", "json", "svg", "html", "trace"});
        break;
      case 9:
        c = {"compare", "--families", family() + "," + family()};
        add_few(c), add_parameters(c), add_transforms(c), add_memory(c);
        if (chance(2)) add_model(c), add_partition(c);
        if (chance(3)) add_costs(c);
        add_output(c, {"text", "json", "html"});
        break;
      case 10:
        c = {"model", chance(3) ? file() : "model.json"};
        add_output(c, {"text", "json"});
        break;
      case 11:
        c = chance(2) ? words{"export", "--family", family()} : words{"export", file()};
        if (c.size() == 3) add_few(c), add_parameters(c);
        add(c, "--for", chance(20) ? "trainer" : pick(trainers));
        if (chance(3)) add_model(c), add_partition(c);
        break;
      case 12:
        c = {"import-costs", chance(3) ? file() : "times.json"};
        if (chance(4)) add(c, "--skip", chance(4) ? pick(odd_counts) : "1");
        if (chance(4)) add_model(c), add_partition(c);
        if (chance(8)) add(c, "--schedule", file());
        add_output(c, {"json"});
        break;
      default: c = pick(other_commands); break;
    }
    if (chance(15)) c.insert(c.begin() + static_cast<std::ptrdiff_t>(below(c.size() + 1)), pick(odd_words));
    if (chance(25)) c.erase(c.begin() + static_cast<std::ptrdiff_t>(below(c.size())));
    if (chance(25) && !c.empty()) std::swap(c[below(c.size())], c[below(c.size())]);
    if (chance(40) && !c.empty()) c[0] = mangled(c[0]);
    return c;
  }

  static inline const words large_numbers = {"9", "99", "9999", "65535", "4294967295", "18446744073709551615", "1e308"};
  static inline const words odd_numbers = {"0",
                                           "-1",
                                           "",
                                           "x",
                                           "1.5",
                                           "0x10",
                                           "1e308",
                                           "-0",
                                           "nan",
                                           "inf",
                                           "-inf",
                                           "1e-320",
                                           "4294967295",
                                           "4294967296",
                                           "9223372036854775807",
                                           "9223372036854775808",
                                           " 1",
                                           "1 ",
                                           "1e400",
                                           "268435456",
                                           "100000000000000000000",
                                           "1,5",
                                           "+1"};
  static inline const words odd_counts = {"0", "-1", "", "x", "1.5", "1099511627777", "9223372036854775808"};
  static inline const words rank_limits = {"65534", "65535", "65536", "65537"};
  static inline const words times = {"1", "2", "0", "0.5", "1.25", "97.39", "1e-9", "1e12", "3"};
  static inline const words odd_files = {
      "",          "-",       "nowhere",     "nowhere.json", ".",           "..",        "/",
      "/dev/null", "new.pdf", "no/new.json", "a\nb.json",    "dualpipe",    "new.JSON",  "/dev/full",
      "new.trace", ".json",   "new.",        "a.jso",        "deepseek_v3", "/dev/zero", "/dev/urandom"};
  static inline const words odd_words = {
      "--",  "-",       "--help",        "-h",       "--version",  "--xyz", "-o",        "--pp",    "--pp=", "=", "",
      "--=", "--costs", "--forward=1=2", "\xff\xfe", "--families", "-opp",  "--micro=3", "--wave=2"};
  static inline const words trainers = {"torchtitan", "automodel", "megatron", "jaxpp"};
  static inline const std::vector<words> other_commands = {
      {"list"}, {"help"}, {"--help"}, {"--version"}, {"help", "compare"}, {"help", "nothing"}, {"simulate", "--help"},
      {"x"}};

  std::string tool_;
  std::mt19937_64 random_;
  std::vector<std::pair<std::string, std::string>> files_;
  std::string changed_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: tool_fuzzer TOOL RUNS [FIRST]\n";
    return 2;
  }
  const fs::path tool = fs::absolute(argv[1]);
  const std::uint64_t runs = std::strtoull(argv[2], nullptr, 10),
                      first = argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0;
  std::string folder = (fs::temp_directory_path() / "tool_fuzzer.XXXXXX").string();
  if (!mkdtemp(folder.data())) return 2;
  fs::create_directory(folder + "/files");
  fs::current_path(folder + "/files");
  int faults = 0;
  {
    fuzzer f(tool.string());
    for (std::uint64_t n = first; n < first + runs && faults < 20; ++n) faults += f.check(n);
    std::cout << runs << " runs: exit code 0 " << f.counts[0] << " times, 1 " << f.counts[1] << " times, 2 "
              << f.counts[2] << " times; at most " << f.peak_kib / 1024 << " MiB; " << faults << " faults\n";
    // Too few successes would mean that the fuzzer tests error messages alone.
    if (runs >= 1000 && (f.counts[0] < runs / 5 || f.counts[1] < runs / 500)) {
      std::cout << "too few runs that get past the parsing of options\n";
      ++faults;
    }
  }
  fs::current_path("/");
  fs::remove_all(folder);
  return faults == 0 ? 0 : 1;
}
