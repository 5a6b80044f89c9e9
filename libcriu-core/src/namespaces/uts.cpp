// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/uts.hpp"

#include <sys/utsname.h>
#include <unistd.h>
#include <utsns.pb.h>

#include "base/error.hpp"

namespace criu::namespaces {

void save_uts(const image::Directory& images, const images::task_kobj_ids_entry& root_ids,
              const images::task_kobj_ids_entry& own_ids) {
  if (root_ids.uts_ns_id() == own_ids.uts_ns_id()) {
    return;
  }
  utsname names{};
  base::check(::uname(&names), "read the host name");
  images::utsns_entry entry;
  entry.set_nodename(names.nodename);
  entry.set_domainname(names.domainname);
  images.put(image::type::utsns, root_ids.uts_ns_id(), entry);
}

void restore_uts(const image::Directory& images, std::uint32_t ns_id) {
  images::utsns_entry entry;
  images.require(image::type::utsns, ns_id).only(entry);
  base::check(::sethostname(entry.nodename().data(), entry.nodename().size()), "set the host name", entry.nodename());
  base::check(::setdomainname(entry.domainname().data(), entry.domainname().size()), "set the domain name",
              entry.domainname());
}

}  // namespace criu::namespaces
