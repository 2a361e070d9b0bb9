// SPDX-License-Identifier: MIT
#pragma once

// Estimates of memory, made before any work is done, so that a command that would not fit is refused with a sentence.

#include <pipesched/core/schedule.hpp>
#include <pipesched/generate/families.hpp>
#include <string>

#include "command_line.hpp"

namespace tool {

/// Bytes that this process may still take: the least of what the machine has available, its control group, and its limits.
double free_memory();

/// Bytes for a command: --max-memory, in GiB, or else the least of `at_most` and free_memory().
/// @throws schedule_error unless the option is a positive number.
double memory_budget(const arguments& args, double at_most);

/// Estimates of peak bytes, upper limits by measurement: to make a family's schedule, and to make and simulate it.
double bytes_to_generate(const pipesched::family& f, const pipesched::schedule_params& p);
double bytes_to_study(const pipesched::family& f, const pipesched::schedule_params& p);

/// Estimate of the peak bytes of a format beyond those of the simulated schedule.
double bytes_of_format(const std::string& format, double pairs);

/// Pairs of stages and micro-batches.
double pairs_of(const pipesched::family& f, const pipesched::schedule_params& p);

/// "1.5 GiB", "30 MiB".
std::string in_words(double bytes);

/// "gpipe needs about 25 GiB of memory for ...; the limit is 2 GiB (--max-memory)" if the bytes do not fit, else an empty text.
/// Sizes that the family itself refuses fit.
std::string refusal(const pipesched::family& f, const pipesched::schedule_params& p, double bytes, double budget);

/// @throws schedule_error, with that sentence, if the bytes do not fit into those for the command
void require_memory(const arguments& args, const pipesched::family& f, const pipesched::schedule_params& p,
                    double bytes);

}  // namespace tool
