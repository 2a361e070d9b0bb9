// SPDX-License-Identifier: MIT

#include "memory.hpp"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <pipesched/generate/family.hpp>
#include <pipesched/support/error.hpp>
#include <string>

#include "inputs.hpp"

namespace tool {

namespace {

constexpr double unlimited = std::numeric_limits<double>::infinity();
constexpr double KiB = 1024, MiB = 1024 * KiB, GiB = 1024 * MiB;

// The number after `name` in a file, or the whole file's if the name is empty; unlimited if it has no number.
double number_in(const char* file, const std::string& name) {
  std::ifstream in(file);
  for (std::string word; in >> word;) {
    double number = 0;
    if (name.empty()) return word.find_first_not_of("0123456789") == word.npos ? std::stod(word) : unlimited;
    if (word == name) return in >> number ? number : unlimited;
  }
  return unlimited;
}

// Bytes that a limit of the process leaves.
template <typename Resource>  // an enumeration in C++, an integer elsewhere
double left_of(Resource resource, double used) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return unlimited;
  return std::max(0.0, static_cast<double>(limit.rlim_cur) - used);
}

}  // namespace

double free_memory() {
  const double page = static_cast<double>(sysconf(_SC_PAGESIZE));
  const double mapped = number_in("/proc/self/statm", "") * page;
  const double group = number_in("/sys/fs/cgroup/memory.max", "") - number_in("/sys/fs/cgroup/memory.current", "");
  double least = number_in("/proc/meminfo", "MemAvailable:") * KiB;
  if (group >= 0) least = std::min(least, group);
  if (mapped < unlimited) least = std::min({least, left_of(RLIMIT_AS, mapped), left_of(RLIMIT_DATA, mapped)});
  return least;
}

double memory_budget(const arguments& args, double at_most) {
  const std::optional<double> given = args.number("--max-memory");
  if (!given) return std::min(at_most, free_memory());
  if (!(*given > 0 && std::isfinite(*given)))
    throw pipesched::schedule_error(fmt::format("--max-memory takes a finite number of GiB above 0; got {}{}",
                                                *args.text("--max-memory"), *given <= 0 ? ", nearest 0.1" : ""));
  return *given * GiB;
}

double pairs_of(const pipesched::family& f, const pipesched::schedule_params& p) {
  return static_cast<double>(stages_of(f, p)) * static_cast<double>(p.micro);
}

namespace {

double bytes_of_search(const pipesched::family& f, const pipesched::schedule_params& p) {
  return f.search_bytes ? f.search_bytes(p) : 0;
}

}  // namespace

double bytes_to_generate(const pipesched::family& f, const pipesched::schedule_params& p) {
  return 110 * pairs_of(f, p) + bytes_of_search(f, p);
}

double bytes_to_study(const pipesched::family& f, const pipesched::schedule_params& p) {
  return 140 * pairs_of(f, p) + bytes_of_search(f, p);
}

double bytes_of_format(const std::string& format, double pairs) {
  if (format == "grid" || format == "text") return 45 * pairs;
  if (format == "svg") return 1100 * pairs;
  if (format == "trace") return 2600 * pairs;
  if (format == "html") return 200 * pairs;
  return 0;
}

std::string in_words(double bytes) {
  return bytes >= GiB ? fmt::format("{:.3g} GiB", bytes / GiB) : fmt::format("{:.3g} MiB", bytes / MiB);
}

std::string refusal(const pipesched::family& f, const pipesched::schedule_params& p, double bytes, double budget) {
  const bool legal = p.pp >= 1 && p.micro >= 1 && stages_of(f, p) >= 1 && stages_of(f, p) <= pipesched::max_stages &&
                     pairs_of(f, p) <= static_cast<double>(pipesched::max_pairs);
  if (!legal || bytes <= budget) return {};
  return fmt::format("{} needs about {} of memory for {} and {}; the limit is {} (--max-memory)", f.name,
                     in_words(bytes), pipesched::detail::count_text(stages_of(f, p), "stage"),
                     pipesched::detail::count_text(p.micro, "micro-batch"), in_words(budget));
}

void require_memory(const arguments& args, const pipesched::family& f, const pipesched::schedule_params& p,
                    double bytes) {
  if (const std::string text = refusal(f, p, bytes, memory_budget(args, bytes + 1)); !text.empty())
    throw pipesched::schedule_error(text);
}

}  // namespace tool
