// SPDX-License-Identifier: MIT
#pragma once

// Files that trainers read, made from a schedule and, if given, from a model's partition: export_torchtitan.hpp,
// export_automodel.hpp, export_megatron.hpp, export_jaxpp.hpp.

#include <string>
#include <vector>

#include "pipesched/model/model.hpp"
#include "pipesched/model/partition.hpp"

namespace pipesched {

struct exported_file {
  std::string name;
  std::string text;

  friend bool operator==(const exported_file&, const exported_file&) = default;
};

/// The files for a trainer, and one sentence for each fact that the files do not say.
struct exported {
  std::vector<exported_file> files;
  std::vector<std::string> notes{};

  friend bool operator==(const exported&, const exported&) = default;
};

/// A model and the layers of each stage.
struct divided_model {
  pipesched::model model;
  pipesched::partition partition;
};

}  // namespace pipesched
