// SPDX-License-Identifier: MIT
// Prints the table of scale in bench/README.md: communicators, buffers and messages per rank of DualPipe over NCCL, and the
// time of a step, for growing numbers of ranks. Costs are DeepSeek-V3's measured ones with 4 layers per stage, without
// transfers and over links of 50 GB/s and 10 us. A message is a micro-batch of 4096 tokens, 7168 wide, 2 bytes per number.
//
//   build/examples/example_scale_table [PP ...]      default: 16 64 256 1024; 4096 takes 11 GB and a minute

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <pipesched/cost/presets.hpp>
#include <pipesched/device/channel_set.hpp>
#include <pipesched/generate/families.hpp>
#include <pipesched/program/lower.hpp>
#include <pipesched/simulate/metrics.hpp>
#include <pipesched/simulate/simulate.hpp>
#include <vector>

using namespace pipesched;

int main(int argc, char** argv) {
  std::vector<std::int64_t> sizes = {16, 64, 256, 1024};
  if (argc > 1) sizes.clear();
  for (int i = 1; i < argc; ++i) std::from_chars(argv[i], argv[i] + std::strlen(argv[i]), sizes.emplace_back());

  constexpr double message_bytes = 4096.0 * 7168 * 2, link = 50e9 / 1e3, latency = 0.01;  // bytes, bytes per ms, ms
  std::printf(
      "| ranks | micro-batches | communicators per rank | connection rounds | message buffers per rank | their memory "
      "| "
      "messages sent per rank | step | idle | with transfers | idle |\n");
  std::printf("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
  try {
    for (const std::int64_t pp : sizes) {
      const schedule s = make_schedule("dualpipe", {.pp = pp, .micro = 2 * pp});
      stage_costs costs = deepseek_v3_costs();
      const metrics without = measure(simulate(s, costs));
      costs.transfer_time = latency, costs.message_bytes = message_bytes, costs.bandwidth = link;
      const metrics with = measure(simulate(s, costs));

      const program p = lower(s);
      std::vector<std::uint32_t> communicators(s.pp()), sent(s.pp());
      for (const channel& c : p.channels) ++communicators[c.from], ++communicators[c.to], sent[c.from] += c.messages;
      std::uint32_t buffers = 0;
      for (const pool_sizes& of : p.pools) buffers = std::max(buffers, of[pool::tensor]);
      const std::vector<std::uint32_t> colors = detail::color_channels(p);
      std::printf("| %d | %u | %u | %u | %u | %.2f GB | %u | %.2f s | %.1f %% | %.2f s | %.1f %% |\n",
                  static_cast<int>(pp), s.micro, *std::max_element(communicators.begin(), communicators.end()),
                  1 + *std::max_element(colors.begin(), colors.end()), buffers, buffers * message_bytes / 1e9,
                  *std::max_element(sent.begin(), sent.end()), without.makespan / 1e3, 100 * without.bubble_ratio,
                  with.makespan / 1e3, 100 * with.bubble_ratio);
      std::fflush(stdout);
    }
  } catch (const schedule_error& e) {
    std::fprintf(stderr, "scale_table: %s\n", e.what());
    return 2;
  }
}
