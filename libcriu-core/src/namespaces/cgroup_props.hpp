// SPDX-License-Identifier: LGPL-2.1-only
// Which properties of control groups belong to a checkpoint: the built-in lists, and what a user makes of them.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace criu::namespaces {

class CgroupProps {
 public:
  CgroupProps();
  // Stanzas of a controller, a strategy (merge or replace) and names, as --cgroup-props takes them. An Error names what
  // it stumbles over.
  void apply(std::string_view stanzas);
  void apply_file(const std::string& path);

  // Of a group of version 1, in the order in which they are to be set.
  std::vector<std::string> of_v1(const std::vector<std::string>& controllers) const;
  // Of version 2, with the controllers that are enabled in it.
  std::vector<std::string> of_v2(const std::vector<std::string>& controllers) const;

 private:
  using Lists = std::map<std::string, std::vector<std::string>, std::less<>>;
  Lists v1_, v2_;
};

}  // namespace criu::namespaces
