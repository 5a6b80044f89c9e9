// SPDX-License-Identifier: GPL-2.0-only
// The same for crit, in programs of their own: it links the whole of protobuf, the libraries its small form.
#include <fcntl.h>
#include <sys/mman.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "base/error.hpp"
#include "codec.hpp"
#include "entries.hpp"
#include "report.hpp"

namespace fuzz {

namespace {

std::string bytes_of(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

base::Fd memory_file(const std::string& content) {
  base::Fd fd(base::check(::memfd_create("fuzz", MFD_CLOEXEC), "memfd_create"));
  base::check(::write(fd.get(), content.data(), content.size()), "write");
  base::check(::lseek(fd.get(), 0, SEEK_SET), "lseek");
  return fd;
}

template <typename Convert>
std::string converted(const std::string& input, const Convert& convert) {
  base::Fd result(base::check(::memfd_create("fuzz", MFD_CLOEXEC), "memfd_create"));
  crit::Source in(memory_file(input), "input");
  crit::Output out(base::Fd(base::check(::fcntl(result.get(), F_DUPFD_CLOEXEC, 0), "dup")), "output");
  convert(in, out);
  out.finish();
  std::string text(static_cast<std::size_t>(base::check(::lseek(result.get(), 0, SEEK_END), "lseek")), '\0');
  base::check(::pread(result.get(), text.data(), text.size(), 0), "pread");
  return text;
}

std::string decoded(const std::string& image, bool pretty) {
  return converted(image, [pretty](crit::Source& in, crit::Output& out) { crit::decode(in, out, {pretty, true}); });
}

std::string encoded(const std::string& json) {
  return converted(json, [](crit::Source& in, crit::Output& out) { crit::encode(in, out); });
}

// What can be decoded can be encoded, and says the same again.
void decode(Bytes bytes) {
  std::string json;
  std::string pretty;
  try {
    json = decoded(bytes_of(bytes), false);
    pretty = decoded(bytes_of(bytes), true);
  } catch (const base::Error&) {
    return;
  }
  if (decoded(encoded(json), false) != json || decoded(encoded(pretty), true) != pretty) {
    throw std::logic_error("an image is encoded as another one");
  }
}

void encode(Bytes bytes) {
  std::string image;
  try {
    image = encoded(bytes_of(bytes));
  } catch (const base::Error&) {
    return;
  }
  if (encoded(decoded(image, false)) != image) {
    throw std::logic_error("JSON is decoded as another one");
  }
}

const char* const documents[] = {
    R"({"magic":"PIPES_DATA","entries":[{"pipe_id":7,"bytes":3,"size":65536,"extra":"YWJj\n"}]})",
    R"({"magic":"TCP_STREAM","entries":[{"inq_len":1,"inq_seq":5,"outq_len":2,"outq_seq":6,"opt_mask":7,"snd_wscale":7,"mss_clamp":1460,"extra":{"inq":"YQ==\n","outq":"YmM=\n"}}]})",
    R"({"magic":"IPCNS_SEM","entries":[{"desc":{"key":1,"uid":0,"gid":0,"cuid":0,"cgid":0,"mode":384,"id":0},"nsems":3,"extra":[0,5,65535]}]})",
    R"({"magic":"IPCNS_MSG","entries":[{"desc":{"key":1,"uid":0,"gid":0,"cuid":0,"cgid":0,"mode":384,"id":0},"qbytes":16384,"qnum":1,"extra":[{"mtype":7,"msize":3},"YWJj\n"]}]})",
    R"({"magic":"IPCNS_SHM","entries":[{"desc":{"key":1,"uid":0,"gid":0,"cuid":0,"cgid":0,"mode":384,"id":0},"size":5,"extra":"YWJjZGU=\n"}]})",
    R"({"magic":"GHOST_FILE","entries":[{"uid":0,"gid":0,"mode":33188,"dev":"254:1","chunks":true,"size":8192},{"len":3,"off":0,"extra":"YWJj\n"}]})",
    R"({"magic":"FILES","entries":[{"type":"INETSK","id":1,"isk":{"id":1,"ino":2,"family":"INET6","type":"STREAM","proto":"TCP","state":"LISTEN","src_port":80,"dst_port":0,"flags":"0x2","backlog":1,"src_addr":["2001:db8::1"],"dst_addr":["::"],"fown":{"uid":0,"euid":0,"signum":0,"pid_type":0,"pid":0},"opts":{"so_sndbuf":1,"so_rcvbuf":1,"so_snd_tmo_sec":0,"so_snd_tmo_usec":0,"so_rcv_tmo_sec":0,"so_rcv_tmo_usec":0}}}]})",
    R"({"magic":"UTSNS","entries":[{"nodename":"caf\udce9 \u00e9 \ud83d\ude00","domainname":"d"}]})",
};

const char* const mm_document =
    R"({"magic":"MM","entries":[{"mm_start_code":1,"mm_end_code":2,"mm_start_data":3,"mm_end_data":4,"mm_start_stack":5,"mm_start_brk":6,"mm_brk":7,"mm_arg_start":8,"mm_arg_end":9,"mm_env_start":10,"mm_env_end":11,"exe_file_id":1,"vmas":[{"start":4096,"end":12288,"pgoff":0,"shmid":0,"prot":3,"flags":34,"status":513,"fd":-1},{"start":16384,"end":20480,"pgoff":0,"shmid":1,"prot":5,"flags":2,"status":65,"fd":-1}]}]})";
const char* const pagemap_document =
    R"({"magic":"PAGEMAP","entries":[{"pages_id":1},{"vaddr":4096,"compat_nr_pages":0,"flags":4,"nr_pages":1},{"vaddr":16384,"compat_nr_pages":1,"flags":4}]})";
const char* const pstree_document =
    R"({"magic":"PSTREE","entries":[{"pid":1,"ppid":0,"pgid":1,"sid":1,"threads":[1]}]})";
const char* const core_document =
    R"({"magic":"CORE","entries":[{"mtype":"X86_64","tc":{"task_state":1,"exit_code":0,"personality":0,"flags":0,"blk_sigset":0,"comm":"seed"}}]})";

// A checkpoint of one task, gone with the program.
class Place {
 public:
  Place() {
    if (::mkdtemp(path_.data()) == nullptr) {
      std::abort();
    }
    put("pstree.img", encoded(pstree_document));
    put("core-1.img", encoded(core_document));
    put("mm-1.img", encoded(mm_document));
    put("pagemap-1.img", encoded(pagemap_document));
    put("pages-1.img", std::string(8192, 'x'));
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  void put(const std::string& name, const std::string& content) const {
    crit::Output out(path_ + "/" + name);
    out.write(content);
    out.finish();
  }

 private:
  std::string path_ = "/tmp/crit-fuzz-XXXXXX";
};

template <const char* const& name, const char* const& good>
void report(Bytes bytes) {
  static const Place place;
  place.put(name, bytes_of(bytes));
  try {
    crit::Output out(base::Fd(base::check(::memfd_create("fuzz", MFD_CLOEXEC), "memfd_create")), "output");
    crit::report(crit::Checkpoint(place.path()), out);
  } catch (const base::Error&) {
  }
  place.put(name, encoded(good));
}

const char* const pstree_name = "pstree.img";
const char* const mm_name = "mm-1.img";
const char* const pagemap_name = "pagemap-1.img";

template <const char* const& good>
std::vector<std::string> seed() {
  return {encoded(good)};
}

}  // namespace

const std::vector<Entry>& entries() {
  static const std::vector<Entry> all{
      {"crit-decode", decode,
       [] {
         std::vector<std::string> images;
         for (const auto* document : documents) {
           images.push_back(encoded(document));
         }
         return images;
       }},
      {"crit-encode", encode, [] { return std::vector<std::string>(std::begin(documents), std::end(documents)); }},
      {"crit-pstree", report<pstree_name, pstree_document>, seed<pstree_document>},
      {"crit-mm", report<mm_name, mm_document>, seed<mm_document>},
      {"crit-pagemap", report<pagemap_name, pagemap_document>, seed<pagemap_document>},
  };
  return all;
}

}  // namespace fuzz
