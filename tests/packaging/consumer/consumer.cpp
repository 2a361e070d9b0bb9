// Makes, verifies and prints a schedule; with IO by fmt and JSON.
#include <cstdio>
#include <pipesched/core/verify.hpp>
#include <pipesched/generate/1f1b.hpp>
#include <pipesched/version.hpp>
#if IO
#include <pipesched/io/format.hpp>
#include <pipesched/io/json.hpp>
#endif

int main() {
  const pipesched::schedule s = pipesched::make_1f1b_schedule({.pp = 2, .micro = 2});
  if (!verify(s)) return 1;
#if IO
  const nlohmann::json document = {{"schedule", fmt::format("{}", s)}};
  std::printf("%s\n", document.dump().c_str());
#else
  for (const pipesched::cell& c : s[0]) std::printf("%s ", to_string(c).c_str());
  std::printf("\n");
#endif
}
