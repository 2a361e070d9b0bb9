// SPDX-License-Identifier: MIT
#pragma once

// The launch environment: the number of this process, the number of processes and the address of process 0, from the
// variables that launchers set: torchrun, mpirun of Open MPI, MPICH and Intel MPI, srun. One binary runs under all of them.
//
//   what         torchrun            Open MPI                     MPICH, Intel     srun
//   rank         RANK                OMPI_COMM_WORLD_RANK         PMI_RANK         SLURM_PROCID
//   size         WORLD_SIZE          OMPI_COMM_WORLD_SIZE         PMI_SIZE         SLURM_STEP_NUM_TASKS
//   local rank   LOCAL_RANK          OMPI_COMM_WORLD_LOCAL_RANK   MPI_LOCALRANKID  SLURM_LOCALID
//   local size   LOCAL_WORLD_SIZE    OMPI_COMM_WORLD_LOCAL_SIZE   MPI_LOCALNRANKS
//   token        TORCHELASTIC_RUN_ID PMIX_NAMESPACE               -                SLURM_JOB_ID.SLURM_STEP_ID
//   address      MASTER_ADDR under any of them; else the first host of SLURM_STEP_NODELIST; else this host, if all are on it
//   port         MASTER_PORT under any of them; else 20000 + SLURM_JOB_ID % 10000; else 29500
//
// A launcher's token keeps jobs apart, but can be guessed: PIPESCHED_TOKEN, the same for all processes, is taken instead.
// The first column with rank, size and local rank is taken; else the first with a rank and a size. If torchrun's agent
// listens at MASTER_PORT itself (TORCHELASTIC_USE_AGENT_STORE), the next port is used.

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>

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

/// The first host of a list as Slurm has it: "node7", "node[03-09,12]", "gpu-a[1-2],gpu-b3", "r[1-2]n[3-4]".
inline std::string first_host(std::string_view list) {
  std::string host;
  while (!list.empty() && list[0] != ',') {
    if (list[0] != '[') {
      host += list[0];
      list.remove_prefix(1);
      continue;
    }
    list.remove_prefix(1);
    host += list.substr(0, list.find_first_of("-,]"));
    list.remove_prefix(std::min(list.find(']'), list.size() - 1) + 1);
  }
  return host;
}

}  // namespace detail

/// @param get  from a name to its value in the environment, nullptr if it has none
/// @throws schedule_error for values that are not numbers or out of range, and if several hosts have no MASTER_ADDR
template <typename Get>
launch_environment read_launch_environment(Get&& get) {
  struct names {
    const char *launcher, *rank, *size, *local_rank, *local_size, *token;
  };
  constexpr names known[] = {
      {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "TORCHELASTIC_RUN_ID"},
      {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
       "OMPI_COMM_WORLD_LOCAL_SIZE", "PMIX_NAMESPACE"},
      {"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", ""},
      {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", "SLURM_JOB_ID"},
  };
  const auto text = [&](const char* name) -> std::optional<std::string> {
    const char* const value = *name == 0 ? nullptr : get(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  };
  const auto number = [&](const char* name, std::uint64_t most) -> std::optional<std::uint64_t> {
    const auto value = text(name);
    if (!value) return std::nullopt;
    std::uint64_t n = 0;
    const auto [end, error] = std::from_chars(value->data(), value->data() + value->size(), n);
    if (error != std::errc{} || end != value->data() + value->size() || n > most)
      throw schedule_error(detail::concat({name, " is a number from 0 to ", most, "; got \"", *value, "\""}));
    return n;
  };
  constexpr std::uint64_t max_processes = 1'000'000;
  launch_environment e;
  std::uint32_t local_size = 1;
  const names* taken = nullptr;
  for (const bool whole : {true, false})
    for (const names& of : known)
      if (taken == nullptr && text(of.rank) && text(of.size) && (!whole || text(of.local_rank))) taken = &of;
  if (taken != nullptr) {
    const names& of = *taken;
    const auto rank = number(of.rank, max_processes), size = number(of.size, max_processes);
    if (*rank >= *size)
      throw schedule_error(detail::concat({of.rank, " is below ", of.size, ", which is ", *size, "; got ", *rank}));
    e.launcher = of.launcher;
    e.rank = static_cast<std::uint32_t>(*rank), e.size = static_cast<std::uint32_t>(*size);
    e.local_rank = static_cast<std::uint32_t>(number(of.local_rank, max_processes).value_or(*rank));
    local_size = static_cast<std::uint32_t>(number(of.local_size, max_processes).value_or(1));
    e.token = text(of.token).value_or("");
    if (e.launcher == "srun") e.token += "." + text("SLURM_STEP_ID").value_or("");
  }
  if (const auto token = text("PIPESCHED_TOKEN")) e.token = *token;
  constexpr std::size_t max_token = 256;
  if (e.token.size() > max_token)
    throw schedule_error(
        detail::concat({"PIPESCHED_TOKEN has at most ", max_token, " characters; got ", e.token.size()}));
  e.listen = text("PIPESCHED_LISTEN").value_or("");
  const auto hosts = text("SLURM_STEP_NODELIST");
  if (const auto address = text("MASTER_ADDR"))
    e.address = *address;
  else if (e.launcher == "srun" && hosts)
    e.address = detail::first_host(*hosts);
  else if (local_size < e.size)
    throw schedule_error(
        detail::concat({"MASTER_ADDR, the host of process 0, is needed by ", e.size, " processes of which ", local_size,
                        local_size == 1 ? " is" : " are", " known to be here"}));
  if (e.address.empty())
    throw schedule_error("MASTER_ADDR or SLURM_STEP_NODELIST has the host of process 0; got an empty name");
  if (const auto port = number("MASTER_PORT", 65535))
    e.port = static_cast<std::uint16_t>(*port);
  else if (const auto job = number("SLURM_JOB_ID", ~std::uint64_t{0}))
    e.port = static_cast<std::uint16_t>(20000 + *job % 10000);
  if (text("TORCHELASTIC_USE_AGENT_STORE") == "True" && ++e.port == 0)
    throw schedule_error("MASTER_PORT is at most 65534 where the launcher listens there itself; got 65535");
  if (e.port == 0 && e.size > 1)
    throw schedule_error("MASTER_PORT is from 1 to 65535 where there is more than one process; got 0");
  return e;
}
/// Of this process. @throws schedule_error
inline launch_environment read_launch_environment() {
  return read_launch_environment([](const char* name) -> const char* { return std::getenv(name); });
}

}  // namespace pipesched
