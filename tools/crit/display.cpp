// SPDX-License-Identifier: GPL-2.0-only
#include "display.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <array>
#include <charconv>

namespace crit {

namespace {

const Names protection{{1, "PROT_READ"}, {2, "PROT_WRITE"}, {4, "PROT_EXEC"}};
const Names mapping{
    {1, "MAP_SHARED"}, {2, "MAP_PRIVATE"}, {8, "MAP_DROPPABLE"}, {0x20, "MAP_ANON"}, {0x100, "MAP_GROWSDOWN"}};
const Names area{{0, "VMA_AREA_NONE"},           {1U << 0, "VMA_AREA_REGULAR"},  {1U << 1, "VMA_AREA_STACK"},
                 {1U << 2, "VMA_AREA_VSYSCALL"}, {1U << 3, "VMA_AREA_VDSO"},     {1U << 5, "VMA_AREA_HEAP"},
                 {1U << 6, "VMA_FILE_PRIVATE"},  {1U << 7, "VMA_FILE_SHARED"},   {1U << 8, "VMA_ANON_SHARED"},
                 {1U << 9, "VMA_ANON_PRIVATE"},  {1U << 10, "VMA_AREA_SYSVIPC"}, {1U << 11, "VMA_AREA_SOCKET"},
                 {1U << 12, "VMA_AREA_VVAR"},    {1U << 13, "VMA_AREA_AIORING"}, {1U << 14, "VMA_AREA_MEMFD"},
                 {1U << 15, "VMA_AREA_SHSTK"},   {1U << 17, "VMA_AREA_UPROBES"}, {1U << 31, "VMA_UNSUPP"}};
const Names open_flags{
    {1, "O_WRONLY"},          {2, "O_RDWR"},           {0100, "O_CREAT"},       {0200, "O_EXCL"},
    {0400, "O_NOCTTY"},       {01000, "O_TRUNC"},      {02000, "O_APPEND"},     {04000, "O_NONBLOCK"},
    {010000, "O_DSYNC"},      {020000, "FASYNC"},      {040000, "O_DIRECT"},    {0100000, "O_LARGEFILE"},
    {0200000, "O_DIRECTORY"}, {0400000, "O_NOFOLLOW"}, {01000000, "O_NOATIME"}, {02000000, "O_CLOEXEC"}};
const Names pages{{1, "PE_PARENT"}, {2, "PE_LAZY"}, {4, "PE_PRESENT"}};
const Names seals{
    {1, "F_SEAL_SEAL"}, {2, "F_SEAL_SHRINK"}, {4, "F_SEAL_GROW"}, {8, "F_SEAL_WRITE"}, {16, "F_SEAL_FUTURE_WRITE"}};
// CRIU's labels: what it calls a zombie are in truth the stopped tasks (3), and zombies (2) are bare numbers.
const Names task_states{{1, "Alive"}, {3, "Zombie"}, {6, "Stopped"}};
const Names families{{1, "UNIX"}, {2, "INET"}, {10, "INET6"}, {16, "NETLINK"}, {17, "PACKET"}};
const Names socket_types{{1, "STREAM"}, {2, "DGRAM"}, {3, "RAW"}, {5, "SEQPACKET"}, {10, "PACKET"}};
const Names socket_states{{1, "ESTABLISHED"}, {2, "SYN_SENT"}, {3, "SYN_RECV"},   {4, "FIN_WAIT1"}, {5, "FIN_WAIT2"},
                          {6, "TIME_WAIT"},   {7, "CLOSE"},    {8, "CLOSE_WAIT"}, {9, "LAST_ACK"},  {10, "LISTEN"}};
const Names protocols{{0, "IP"}, {6, "TCP"}, {17, "UDP"}, {136, "UDPLITE"}};

// Message, then its fields.
constexpr const char* hexadecimal[][15] = {
    {"fanotify_file_entry", "flags", "faflags", "evflags"},
    {"fanotify_mark_entry", "mflags", "mask", "ignored_mask"},
    {"inet_sk_entry", "flags"},
    {"inotify_file_entry", "flags"},
    {"inotify_wd_entry", "mask", "ignored_mask"},
    {"mm_entry", "mm_start_code", "mm_end_code", "mm_start_data", "mm_end_data", "mm_start_stack", "mm_start_brk",
     "mm_brk", "mm_arg_start", "mm_arg_end", "mm_env_start", "mm_env_end"},
    {"mnt_entry", "flags", "sb_flags"},
    {"net_device_entry", "flags"},
    {"netlink_sk_entry", "flags"},
    {"packet_sock_entry", "flags"},
    {"pagemap_entry", "vaddr"},
    {"pipe_entry", "flags"},
    {"sa_entry", "sigaction", "flags", "restorer", "mask", "mask_extended"},
    {"signalfd_entry", "flags", "sigmask"},
    {"task_core_entry", "blk_sigset", "blk_sigset_extended", "membarrier_registration_mask"},
    {"tcp_stream_entry", "opt_mask"},
    {"thread_info_aarch64", "clear_tid_addr", "gpregs"},
    {"thread_info_arm", "clear_tid_addr", "gpregs"},
    {"thread_info_loongarch64", "clear_tid_addr", "gpregs", "fpregs"},
    {"thread_info_mips", "clear_tid_addr", "gpregs", "fpregs"},
    {"thread_info_ppc64", "clear_tid_addr", "gpregs"},
    {"thread_info_riscv64", "clear_tid_addr", "gpregs"},
    {"thread_info_s390", "clear_tid_addr", "gpregs", "fpregs", "vxrs_low", "vxrs_high", "gs_cb", "gs_bc", "ri_cb"},
    {"thread_info_x86", "clear_tid_addr", "gpregs"},
    {"timerfd_entry", "flags", "settime_flags"},
    {"tty_file_entry", "flags"},
    {"tun_link_entry", "flags"},
    {"unix_sk_entry", "flags", "uflags"},
    {"user_x86_cet_entry", "cet", "ssp"},
    {"vma_entry", "start", "end", "madv", "fdflags"},
};

std::map<std::string, Display> make_displayed_fields() {
  std::map<std::string, Display> all{
      {"vma_entry.prot", {Display::flags, &protection}},
      {"vma_entry.flags", {Display::flags, &mapping}},
      {"vma_entry.status", {Display::flags, &area}},
      {"bpfmap_file_entry.flags", {Display::flags, &open_flags}},
      {"reg_file_entry.flags", {Display::flags, &open_flags}},
      {"memfd_file_entry.flags", {Display::flags, &open_flags}},
      {"pagemap_entry.flags", {Display::flags, &pages}},
      {"memfd_inode_entry.seals", {Display::flags, &seals}},
      {"task_core_entry.task_state", {Display::dictionary, &task_states}},
      {"inet_sk_entry.family", {Display::dictionary, &families}},
      {"inet_sk_entry.type", {Display::dictionary, &socket_types}},
      {"inet_sk_entry.proto", {Display::dictionary, &protocols}},
      {"inet_sk_entry.state", {Display::dictionary, &socket_states}},
      {"unix_sk_entry.type", {Display::dictionary, &socket_types}},
      {"unix_sk_entry.state", {Display::dictionary, &socket_states}},
      {"unix_sk_entry.name", {Display::unix_name}},
      {"inet_sk_entry.src_addr", {Display::address}},
      {"inet_sk_entry.dst_addr", {Display::address}},
      {"sit_entry.local", {Display::address}},
      {"sit_entry.remote", {Display::address}},
      {"sit_entry.rd_prefix", {Display::address}},
      {"sit_entry.relay_prefix", {Display::address}},
      {"inotify_wd_entry.s_dev", {Display::device}},
      {"fanotify_mark_entry.s_dev", {Display::device}},
      {"ghost_file_entry.dev", {Display::device}},
      {"ghost_file_entry.rdev", {Display::libc_device}},
      {"irmap_cache_entry.dev", {Display::libc_device}},
      {"mnt_entry.root_dev", {Display::device}},
  };
  for (const auto& line : hexadecimal) {
    for (const auto* const* field = line + 1; *field != nullptr; ++field) {
      all[std::string(line[0]) + "." + *field] = {Display::hex};
    }
  }
  return all;
}

std::string_view trimmed(std::string_view text) {
  constexpr std::string_view blank = " \t\n\r";
  const auto from = text.find_first_not_of(blank);
  return from == text.npos ? std::string_view() : text.substr(from, text.find_last_not_of(blank) - from + 1);
}

std::optional<std::uint64_t> by_name(const Names& names, std::string_view name) {
  for (const auto& [value, known] : names) {
    if (name == known) {
      return value;
    }
  }
  return std::nullopt;
}

std::optional<Number> read_flags(std::string_view text, const Names& names) {
  Number all;
  while (!trimmed(text).empty()) {
    const auto bar = std::min(text.find('|'), text.size());
    const auto word = trimmed(text.substr(0, bar));
    if (const auto known = by_name(names, word)) {
      all.magnitude |= *known;
    } else if (const auto number = read_number(word); number && !number->negative) {
      all.magnitude |= number->magnitude;
    } else {
      return std::nullopt;
    }
    text.remove_prefix(std::min(bar + 1, text.size()));
  }
  return all;
}

std::optional<Number> read_device(std::string_view text, Display::Style style) {
  const auto colon = text.find(':');
  if (colon == text.npos) {
    return read_number(text);
  }
  const auto major = read_number(text.substr(0, colon));
  const auto minor = read_number(text.substr(colon + 1));
  constexpr std::uint64_t most = 0xfffff;
  if (!major || !minor || major->negative || minor->negative || major->magnitude > 0xfff || minor->magnitude > most) {
    return std::nullopt;
  }
  const auto high = major->magnitude;
  const auto low = minor->magnitude;
  return style == Display::device ? Number{high << 20 | low}
                                  : Number{(low & 0xff) | high << 8 | (low & ~0xffULL) << 12};
}

}  // namespace

const std::map<std::string, Display>& displayed_fields() {
  static const auto all = make_displayed_fields();
  return all;
}

std::string hex_text(std::uint64_t value, bool negative) {
  return negative ? fmt::format("-{:#x}", 0 - value) : fmt::format("{:#x}", value);
}

std::string flags_text(const Names& names, std::uint64_t value) {
  std::string text;
  for (const auto& [bit, name] : names) {
    if ((value & bit) != 0) {
      text += text.empty() ? "" : " | ";
      text += name;
      value &= ~bit;
    }
  }
  if (value != 0) {
    text += (text.empty() ? "" : " | ") + hex_text(value);
  }
  return text;
}

std::string device_text(std::uint64_t value, Display::Style style) {
  if (style == Display::device) {
    return fmt::format("{}:{}", value >> 20, value & 0xfffff);
  }
  return fmt::format("{}:{}", (value >> 8) & 0xfff, (value & 0xff) | ((value >> 12) & 0xfff00));
}

std::string address_text(const std::vector<std::uint32_t>& words) {
  std::array<unsigned char, 16> bytes{};
  for (std::size_t i = 0; i < words.size() * 4; ++i) {
    bytes[i] = static_cast<unsigned char>(words[i / 4] >> (i % 4 * 8));
  }
  if (words.size() == 1) {
    return fmt::format("{}.{}.{}.{}", bytes[0], bytes[1], bytes[2], bytes[3]);
  }
  // inet_ntop would write mapped addresses with dots, which scripts don't expect.
  std::array<unsigned, 8> groups{};
  std::size_t longest = 0;
  std::size_t longest_at = 0;
  std::size_t run = 0;
  for (std::size_t i = 0; i < 8; ++i) {
    groups[i] = bytes[2 * i] * 256U + bytes[2 * i + 1];
    run = groups[i] == 0 ? run + 1 : 0;
    if (run > longest) {
      longest = run;
      longest_at = i + 1 - run;
    }
  }
  std::string text;
  for (std::size_t i = 0; i < 8; ++i) {
    if (longest > 1 && i == longest_at) {
      text += "::";
      i += longest - 1;
    } else {
      text += (text.empty() || text.back() == ':' ? "" : ":") + fmt::format("{:x}", groups[i]);
    }
  }
  return text;
}

std::optional<Number> read_number(std::string_view text) {
  Number number;
  text = trimmed(text);
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) {
    number.negative = text[0] == '-';
    text.remove_prefix(1);
  }
  int base = 10;
  if (text.size() > 2 && text[0] == '0') {
    const char letter = static_cast<char>(text[1] | 0x20);
    base = letter == 'x' ? 16 : letter == 'o' ? 8 : letter == 'b' ? 2 : 10;
    text.remove_prefix(base == 10 ? 0 : 2);
  }
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number.magnitude, base);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(number) : std::nullopt;
}

std::optional<Number> read_displayed(std::string_view text, const Display* display) {
  if (display != nullptr && display->style == Display::flags) {
    return read_flags(text, *display->names);
  }
  if (display != nullptr && display->style == Display::dictionary) {
    const auto known = by_name(*display->names, text);
    return known ? std::optional(Number{*known}) : read_number(text);
  }
  if (display != nullptr && (display->style == Display::device || display->style == Display::libc_device)) {
    return read_device(text, display->style);
  }
  return read_number(text);
}

std::optional<std::vector<std::uint32_t>> read_address(const std::string& text) {
  std::vector<std::uint32_t> words(text.find(':') == text.npos ? 1 : 4);
  if (::inet_pton(words.size() == 1 ? AF_INET : AF_INET6, text.c_str(), words.data()) != 1) {
    return std::nullopt;
  }
  return words;
}

}  // namespace crit
