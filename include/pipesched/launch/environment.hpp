// SPDX-License-Identifier: MIT
#pragma once

// The launch environment: the number of this process, the number of processes and the address of process 0, from the
// variables that launchers set: torchrun, mpirun of Open MPI, MPICH and Intel MPI, srun. One binary runs under all of them.
//
//   address   MASTER_ADDR under any of them; else the first host of SLURM_STEP_NODELIST; else this host, if all are on it
//   port      MASTER_PORT under any of them; else 20000 + SLURM_JOB_ID % 10000; else 29500
//
// The other variables are in the table `launchers`. The first one with rank, size and local rank is taken; else the first with
// a rank and a size. If torchrun's agent listens at MASTER_PORT itself (TORCHELASTIC_USE_AGENT_STORE), the next port is used.
// A launcher's token keeps jobs apart, but can be guessed: PIPESCHED_TOKEN, the same for all processes, is taken instead.

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "pipesched/support/error.hpp"

namespace pipesched {

struct launch_environment {
  std::uint32_t rank = 0, size = 1;
  std::uint32_t local_rank = 0;  ///< among the processes of this host; the rank where a launcher does not say
  std::string address = "127.0.0.1";
  std::uint16_t port = 29500;
  std::string launcher = "none";
  std::string token{};   ///< process 0 takes no process with another one
  std::string listen{};  ///< where process 0 listens: PIPESCHED_LISTEN, a name or address of its host; empty: `address`
};

namespace detail {

inline void require_token(const std::string& token, std::string_view name) {
  constexpr std::size_t max = 256;
  if (token.size() > max) throw schedule_error(concat({name, " has at most ", max, " characters; got ", token.size()}));
}

/// The names of a launcher's variables; empty: it has none. srun's token is SLURM_JOB_ID.SLURM_STEP_ID.
struct launcher_names {
  const char *launcher, *rank, *size, *local_rank, *local_size, *token;
};
inline constexpr launcher_names launchers[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"},
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_NAMESPACE"},
    {"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", ""},
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", "SLURM_JOB_ID"},
};

/// The variables of an environment.
struct variables {
  std::function<const char*(const char*)> get;

  std::optional<std::string> text(const char* name) const {
    const char* const value = *name == 0 ? nullptr : get(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  }
  /// @throws schedule_error for another text than a number up to `max`
  template <typename Number>
  std::optional<Number> number(const char* name, Number max) const {
    const auto value = text(name);
    if (!value) return std::nullopt;
    Number n = 0;
    const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), n);
    if (error != std::errc{} || end != value->data() + value->size() || n > max)
      throw schedule_error(concat({name, " is a number from 0 to ", max, "; got \"", *value, "\""}));
    return n;
  }
  /// Nothing where no launcher is known. @throws schedule_error for a rank without a size, or a size without a rank, except
  /// in a batch script of Slurm, which is not a step
  const launcher_names* find_launcher() const {
    for (const bool whole : {true, false})
      for (const launcher_names& of : launchers)
        if (text(of.rank) && text(of.size) && (!whole || text(of.local_rank))) return &of;
    for (const launcher_names& of : launchers)
      if (std::string_view(of.launcher) != "srun" && text(of.rank).has_value() != text(of.size).has_value())
        throw schedule_error(concat({text(of.rank) ? of.rank : of.size, " is set, and ",
                                     text(of.rank) ? of.size : of.rank, " is not; a launcher sets both"}));
    return nullptr;
  }
};

/// The first host of a list as Slurm has it: "node7", "node[03-09,12]", "gpu-a[1-2],gpu-b3", "r[1-2]n[3-4]".
inline std::string first_host(std::string_view list) {
  std::string host;
  bool in_brackets = false, is_later = false;  // later: one of the brackets' numbers after the first
  for (const char c : list) {
    if (c == '[' || c == ']')
      in_brackets = c == '[', is_later = false;
    else if (in_brackets && (c == '-' || c == ','))
      is_later = true;
    else if (c == ',')
      break;
    else if (!is_later)
      host += c;
  }
  return host;
}

/// Reads rank, size, local rank and token of this process. Returns the number of processes that are known to be on this host.
inline std::uint32_t read_process(const variables& of, const launcher_names& names, launch_environment& e) {
  constexpr std::uint32_t max = 1'000'000;
  e.launcher = names.launcher;
  e.rank = *of.number(names.rank, max), e.size = *of.number(names.size, max);
  if (e.rank >= e.size)
    throw schedule_error(concat({names.rank, " is below ", names.size, ", which is ", e.size, "; got ", e.rank}));
  e.local_rank = of.number(names.local_rank, max).value_or(e.rank);
  const auto here = of.number(names.local_size, max);
  if (here && of.text(names.local_rank) && e.local_rank >= *here)
    throw schedule_error(
        concat({names.local_rank, " is below ", names.local_size, ", which is ", *here, "; got ", e.local_rank}));
  e.token = of.text(names.token).value_or("");
  if (e.launcher == "srun") e.token += "." + of.text("SLURM_STEP_ID").value_or("");
  return here.value_or(1);
}

inline std::string read_address(const variables& of, const launch_environment& e, std::uint32_t here) {
  const auto address = of.text("MASTER_ADDR"), hosts = of.text("SLURM_STEP_NODELIST");
  const bool by_slurm = e.launcher == "srun" && hosts;
  if (!address && !by_slurm && here < e.size)
    throw schedule_error(concat({"MASTER_ADDR, the host of process 0, is needed by ", count_text(e.size, "process"),
                                 " of which ", here, here == 1 ? " is" : " are", " known to be here"}));
  const std::string host = address ? *address : by_slurm ? first_host(*hosts) : e.address;
  if (host.empty())
    throw schedule_error("MASTER_ADDR or SLURM_STEP_NODELIST has the host of process 0; got an empty name");
  return host;
}

inline std::uint16_t read_port(const variables& of, const launch_environment& e) {
  std::uint16_t port = e.port;
  if (const auto given = of.number("MASTER_PORT", std::uint16_t{65535}))
    port = *given;
  else if (const auto job = of.number("SLURM_JOB_ID", ~std::uint64_t{0}))
    port = static_cast<std::uint16_t>(20000 + *job % 10000);
  if (of.text("TORCHELASTIC_USE_AGENT_STORE") == "True" && ++port == 0)
    throw schedule_error("MASTER_PORT is at most 65534 where the launcher listens there itself; got 65535");
  if (port == 0 && e.size > 1)
    throw schedule_error("MASTER_PORT is from 1 to 65535 where there is more than one process; got 0");
  return port;
}

}  // namespace detail

/// @param get  from the name of a variable to its value, nullptr if it has none; by default those of this process
/// @throws schedule_error for values that are not numbers or out of range, and if several hosts have no MASTER_ADDR
inline launch_environment read_launch_environment(std::function<const char*(const char* name)> get =
                                                      [](const char* name) { return std::getenv(name); }) {
  const detail::variables of{std::move(get)};
  launch_environment e;
  const detail::launcher_names* const launcher = of.find_launcher();
  const std::uint32_t here = launcher == nullptr ? 1 : detail::read_process(of, *launcher, e);
  const auto own_token = of.text("PIPESCHED_TOKEN");
  e.token = own_token.value_or(e.token);
  detail::require_token(e.token, own_token || launcher == nullptr ? "PIPESCHED_TOKEN" : launcher->token);
  e.listen = of.text("PIPESCHED_LISTEN").value_or("");
  e.address = detail::read_address(of, e, here);
  e.port = detail::read_port(of, e);
  return e;
}

}  // namespace pipesched
