// SPDX-License-Identifier: GPL-2.0-only
// What we read from CRIU 4.2's images is, field by field, what its own tool read from them.
#include <fcntl.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>

#include "base/fd.hpp"
#include "image/stream.hpp"
#include "pretty.hpp"
#include "samples.hpp"

namespace fs = std::filesystem;
namespace image = criu::image;
using nlohmann::json;

namespace {

// The schemas of images/, compiled at build time, as messages made at run time.
class Schemas {
 public:
  Schemas() {
    google::protobuf::FileDescriptorSet set;
    std::ifstream file(std::getenv("IMAGE_DESCRIPTORS"), std::ios::binary);
    if (!set.ParseFromIstream(&file)) {
      throw std::runtime_error("IMAGE_DESCRIPTORS does not name the compiled schemas");
    }
    for (const auto& one : set.file()) {
      if (pool_.BuildFile(one) == nullptr) {
        throw std::runtime_error("schema " + one.name() + " does not fit the others");
      }
    }
  }
  std::unique_ptr<google::protobuf::Message> make(const std::string& name) {
    const auto* type = pool_.FindMessageTypeByName("criu.images." + name);
    if (type == nullptr) {
      throw std::runtime_error("no message " + name);
    }
    return std::unique_ptr<google::protobuf::Message>(factory_.GetPrototype(type)->New());
  }

 private:
  google::protobuf::DescriptorPool pool_;
  google::protobuf::DynamicMessageFactory factory_;
};

struct Kind {
  image::Type type;
  const char* message;
  const char* further = nullptr;  // the message of all records but the first, where it differs
};

// By crit's name of the image, which its view starts with. Images whose records carry raw bytes are compared by the
// round trip; here stand the ones that are messages from end to end.
const std::map<std::string, Kind>& kinds() {
  using namespace image::type;
  static const std::map<std::string, Kind> all{
      {"INVENTORY", {inventory, "inventory_entry"}},
      {"PSTREE", {image::type::pstree, "pstree_entry"}},
      {"CORE", {core, "core_entry"}},
      {"IDS", {ids, "task_kobj_ids_entry"}},
      {"MM", {mm, "mm_entry"}},
      {"FS", {image::type::fs, "fs_entry"}},
      {"FDINFO", {fdinfo, "fdinfo_entry"}},
      {"FILES", {files, "file_entry"}},
      {"PAGEMAP", {pagemap, "pagemap_head", "pagemap_entry"}},
      {"REMAP_FPATH", {remap_fpath, "remap_file_path_entry"}},
      {"TTY_INFO", {tty_info, "tty_info_entry"}},
      {"TTY_DATA", {tty_data, "tty_data_entry"}},
      {"CGROUP", {cgroup, "cgroup_entry"}},
      {"FILE_LOCKS", {file_locks, "file_lock_entry"}},
      {"SECCOMP", {seccomp, "seccomp_entry"}},
      {"MEMFD_INODE", {memfd_inode, "memfd_inode_entry"}},
      {"UTSNS", {utsns, "utsns_entry"}},
      {"MNTS", {mnts, "mnt_entry"}},
      {"TIMENS", {timens, "timens_entry"}},
      {"IPC_VAR", {ipc_var, "ipc_var_entry"}},
      {"NETDEV", {netdev, "net_device_entry"}},
      {"NETNS", {netns, "netns_entry"}},
      {"STATS", {stats_dump, "stats_entry"}},
  };
  return all;
}

json decode(const fs::path& file, const Kind& kind, Schemas& schemas, const interop::Pretty& pretty) {
  image::Reader reader(base::Fd(::open(file.c_str(), O_RDONLY | O_CLOEXEC)), file.filename(), kind.type);
  auto record = schemas.make(kind.message);
  json entries = json::array();
  while (reader.next(*record)) {
    REQUIRE(record->GetReflection()->GetUnknownFields(*record).empty());
    entries.push_back(pretty.render(*record));
    if (kind.further != nullptr && entries.size() == 1) {
      record = schemas.make(kind.further);
    }
  }
  return entries;
}

// The first difference, as "where: ours, theirs"; empty when there is none.
std::string difference(const json& ours, const json& theirs) {
  const auto patch = json::diff(theirs, ours);
  if (patch.empty()) {
    return {};
  }
  const auto where = json::json_pointer(patch[0]["path"].get<std::string>());
  const auto text = [&where](const json& of) { return of.contains(where) ? of.at(where).dump() : std::string("none"); };
  return where.to_string() + ": ours " + text(ours) + ", theirs " + text(theirs);
}

}  // namespace

TEST_CASE("bytes print as base64 in lines") {
  CHECK(interop::base64("").empty());
  CHECK(interop::base64("to master") == "dG8gbWFzdGVy\n");
  CHECK(interop::base64("a") == "YQ==\n");
  CHECK(interop::base64(std::string(57, 'x')).size() == 77);
  CHECK(interop::base64(std::string(58, 'x')).size() == 77 + 5);
}

TEST_CASE("decoded values are the ones that crit shows") {
  const auto name = GENERATE(from_range(interop::sample_names));
  const interop::Sample sample(name);
  const interop::Pretty pretty(interop::shared_directory() / "spec" / "image-fields.tsv");
  Schemas schemas;
  std::set<std::string> compared;
  for (const auto& entry : fs::directory_iterator(sample.json())) {
    const auto view = json::parse(interop::read_file(entry.path()));
    const auto kind = kinds().find(view["magic"]);
    if (kind == kinds().end()) {
      continue;
    }
    const auto file = sample.images() / entry.path().stem();
    INFO(name << "/" << file.filename().string());
    CHECK_THAT(difference(decode(file, kind->second, schemas, pretty), view["entries"]), Catch::Equals(""));
    compared.insert(kind->first);
  }
  for (const char* must : {"INVENTORY", "PSTREE", "CORE", "MM", "FILES", "FDINFO", "IDS", "FS", "PAGEMAP", "SECCOMP"}) {
    CHECK(compared.count(must) == 1);
  }
}
