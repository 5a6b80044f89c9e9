// SPDX-License-Identifier: LGPL-2.1-only
// BPF maps: hash tables and arrays, with what is in them. A map that is also open outside of the tree, pinned or used
// by a program becomes one of the tree's own.
#include "files/bpf_map.hpp"

#include <bpfmap-data.pb.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "files/common.hpp"
#include "files/saver.hpp"
#include "log.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// With the head of bpf_attr that a command needs filled in; all else zero.
template <typename Fill>
int bpf(bpf_cmd command, Fill fill) {
  bpf_attr attr;
  std::memset(&attr, 0, sizeof attr);
  fill(attr);
  return static_cast<int>(::syscall(SYS_bpf, command, &attr, sizeof attr));
}

std::uint64_t address(const void* at) { return reinterpret_cast<std::uint64_t>(at); }

bpf_map_info info_of(int map, const std::string& what) {
  bpf_map_info info;
  std::memset(&info, 0, sizeof info);
  check(bpf(BPF_OBJ_GET_INFO_BY_FD,
            [&](bpf_attr& attr) {
              attr.info.bpf_fd = static_cast<std::uint32_t>(map);
              attr.info.info_len = sizeof info;
              attr.info.info = address(&info);
            }),
        "look at", what);
  return info;
}

// The same map by another description, with other rights.
base::Fd open_map(std::uint32_t id, std::uint32_t rights, const std::string& what) {
  return base::Fd(check(bpf(BPF_MAP_GET_FD_BY_ID,
                            [&](bpf_attr& attr) {
                              attr.map_id = id;
                              attr.open_flags = rights;
                            }),
                        "open", what, "needs CAP_SYS_ADMIN"));
}

// ---- dump

struct Contents {
  std::string keys, values;
  std::uint32_t count = 0;
};

// One element after the other: the batched calls cannot be told from a table that changes under them, and need more of
// the kernel.
Contents read_map(int map, const bpf_map_info& info, const std::string& what) {
  Contents contents;
  std::string key(info.key_size, '\0'), next(info.key_size, '\0'), value(info.value_size, '\0');
  const void* from = nullptr;
  const auto command = [&](bpf_cmd which, const void* at, void* into) {
    return bpf(which, [&](bpf_attr& attr) {
      attr.map_fd = static_cast<std::uint32_t>(map);
      attr.key = address(at);
      attr.value = address(into);  // in one place with next_key
    });
  };
  for (; command(BPF_MAP_GET_NEXT_KEY, from, next.data()) == 0; from = key.data()) {
    key = next;
    if (command(BPF_MAP_LOOKUP_ELEM, key.data(), value.data()) < 0) {
      if (errno == ENOENT) {
        continue;  // removed by somebody outside of the tree
      }
      throw Error("read an element of", what, errno);
    }
    contents.keys += key;
    contents.values += value;
    if (++contents.count > info.max_entries) {
      throw Error("read", what + ": it changes all the time, by somebody outside of the tree", 0);
    }
  }
  if (errno != ENOENT) {
    throw Error("list the keys of", what, errno);
  }
  return contents;
}

void save_contents(Saver& saver, const Description& description, const bpf_map_info& info) {
  // The description may be one that cannot be read through.
  const auto reader = open_map(info.id, BPF_F_RDONLY, description.what());
  const auto contents = read_map(reader.get(), info, description.what());
  images::bpfmap_data_entry entry;
  entry.set_map_id(info.id);
  entry.set_keys_bytes(static_cast<std::uint32_t>(contents.keys.size()));
  entry.set_values_bytes(static_cast<std::uint32_t>(contents.values.size()));
  entry.set_count(contents.count);
  auto& image = saver.image(image::type::bpfmap_data);
  image.write(entry);
  image.raw(std::as_bytes(std::span(contents.keys)));
  image.raw(std::as_bytes(std::span(contents.values)));
}

void save(Saver& saver, const Description& description, images::file_entry& entry) {
  const auto& text = description.info.text;
  const auto info = info_of(description.own, description.what());
  if (info.type != BPF_MAP_TYPE_HASH && info.type != BPF_MAP_TYPE_ARRAY) {
    throw Error("not supported by this version",
                fmt::format("{} is of type {}; hash tables (1) and arrays (2) are", description.what(), info.type), 0);
  }
  if (info.btf_id != 0) {
    LOG_WARN("{}: the description of its types (BTF) is not saved", description.what());
  }
  auto& map = *entry.mutable_bpf();
  map.set_id(entry.id());
  map.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  map.set_pos(static_cast<std::uint64_t>(description.info.pos));
  map.set_map_type(info.type);
  map.set_key_size(info.key_size);
  map.set_value_size(info.value_size);
  map.set_map_id(info.id);
  map.set_max_entries(info.max_entries);
  map.set_map_flags(info.map_flags);
  map.set_memlock(kernel::number(text, "memlock"));
  map.set_frozen(kernel::number(text, "frozen") != 0);
  map.set_map_name(std::string(info.name, ::strnlen(info.name, sizeof info.name)));
  map.set_ifindex(info.ifindex);
  if (const auto extra = kernel::field(text, "map_extra")) {
    map.set_map_extra(std::strtoull(std::string(*extra).c_str(), nullptr, 0));
  }
  if (!saver.dump().look_only && saver.first_queue(image::type::bpfmap_data, info.id)) {
    save_contents(saver, description, info);
  }
}

// ---- restore

std::uint32_t rights_of(std::uint32_t flags) {
  return (flags & O_ACCMODE) == O_RDONLY ? BPF_F_RDONLY : (flags & O_ACCMODE) == O_WRONLY ? BPF_F_WRONLY : 0;
}

base::Fd create(const images::bpfmap_file_entry& entry, const std::string& what) {
  return base::Fd(check(bpf(BPF_MAP_CREATE,
                            [&](bpf_attr& attr) {
                              attr.map_type = entry.map_type();
                              attr.key_size = entry.key_size();
                              attr.value_size = entry.value_size();
                              attr.max_entries = entry.max_entries();
                              attr.map_flags = entry.map_flags();
                              attr.map_ifindex = entry.ifindex();
                              entry.map_name().copy(attr.map_name, sizeof attr.map_name - 1);
                              // Kernels before 5.16 refuse a field that they do not know.
                              if (entry.map_extra() != 0) {
                                attr.map_extra = entry.map_extra();
                              }
                            }),
                        "make", what));
}

void fill(const RestoreContext& context, int map, const images::bpfmap_file_entry& entry, const std::string& what) {
  const auto found = context.objects.bpf_maps.find(entry.map_id());
  if (found == context.objects.bpf_maps.end()) {
    return;
  }
  const auto& contents = found->second;
  if (contents.keys.size() != std::uint64_t{contents.count} * entry.key_size() ||
      contents.values.size() != std::uint64_t{contents.count} * entry.value_size()) {
    throw Error("corrupt checkpoint", "bpfmap-data.img: the sizes of " + what, 0);
  }
  for (std::uint32_t i = 0; i < contents.count; ++i) {
    check(bpf(BPF_MAP_UPDATE_ELEM,
              [&](bpf_attr& attr) {
                attr.map_fd = static_cast<std::uint32_t>(map);
                attr.key = address(contents.keys.data() + std::size_t{i} * entry.key_size());
                attr.value = address(contents.values.data() + std::size_t{i} * entry.value_size());
              }),
          "fill", what);
  }
}

std::uint64_t group(const Checkpoint&, const images::file_entry& entry) {
  return std::uint64_t{1} << 32 | entry.bpf().map_id();
}

std::vector<base::Fd> make(RestoreContext& context, std::span<const images::file_entry* const> group) {
  const auto& first = group.front()->bpf();
  const auto what = fmt::format("BPF map {} (file {})", first.map_id(), first.id());
  auto map = create(first, what);
  fill(context, map.get(), first, what);
  if (first.frozen()) {
    check(bpf(BPF_MAP_FREEZE, [&](bpf_attr& attr) { attr.map_fd = static_cast<std::uint32_t>(map.get()); }), "freeze",
          what);
  }
  std::uint32_t id = 0;
  const int any = map.get();  // open until the end, whoever has it
  std::vector<base::Fd> fds;
  for (const auto* entry : group) {
    const auto rights = rights_of(entry->bpf().flags());
    if (map && rights == 0) {
      fds.push_back(std::exchange(map, base::Fd()));
      continue;
    }
    // What the map is told by dies with its last descriptor: the first stays until the end where it is not needed.
    if (id == 0) {
      id = info_of(any, what).id;
    }
    fds.push_back(open_map(id, rights, what));
  }
  for (std::size_t i = 0; i < fds.size(); ++i) {
    set_flags(fds[i].get(), group[i]->bpf().flags(), what);
  }
  return fds;
}

}  // namespace

BpfMaps read_bpf_maps(const image::Directory& images) {
  BpfMaps maps;
  auto reader = images.open(image::type::bpfmap_data);
  images::bpfmap_data_entry entry;
  const auto text = [&](std::uint32_t size) {
    const auto bytes = reader->raw(size);
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  };
  while (reader && reader->next(entry)) {
    auto& map = maps[entry.map_id()];
    map.count = entry.count();
    map.keys = text(entry.keys_bytes());
    map.values = text(entry.values_bytes());
  }
  return maps;
}

const Kind bpf_map_kind = {
    .type = images::BPFMAP,
    .name = "BPF map",
    .recognise = [](const Description& description) { return description.link == "anon_inode:bpf-map"; },
    .save = save,
    .owner = [](images::file_entry& entry) { return entry.mutable_bpf()->mutable_fown(); },
    .group = group,
    .make = make,
};

}  // namespace criu::files
