#include <pipesched/generate/families.hpp>
#include <pipesched/io/format.hpp>
#include <pipesched/io/json.hpp>
#include <pipesched/pipesched.hpp>

int main() {
  const nlohmann::json document = pipesched::make_schedule("zb1p", {.pp = 2, .micro = 2});
  return fmt::format("{}", document.get<pipesched::schedule>()).empty();
}
