//! What the commands say, in both languages.

use crate::text::Lang;
use crate::{faults, texts};

/// Heading of the commands; clap wants it static.
pub(super) const fn commands_heading(lang: Lang) -> &'static str {
    match lang {
        Lang::En => "Commands",
        Lang::Vi => "Lệnh",
    }
}

/// Heading of the options.
pub(super) const fn options_heading(lang: Lang) -> &'static str {
    match lang {
        Lang::En => "Options",
        Lang::Vi => "Tuỳ chọn",
    }
}

texts! {
    /// Help, headers and results.
    pub enum Word {
        About
            en "Stateful NAT64 gateway and DNS64 for IPv6-only networks"
            vi "Cổng NAT64 có trạng thái và DNS64 cho mạng thuần IPv6";
        Usage en "Usage:" vi "Cách dùng:";
        Examples en "Example:" vi "Ví dụ:";
        ExitCodes
            en "Exit codes: 0 done, 1 refused (mistakes in the configuration, failed start), 2 no gateway answers, 64 wrong usage"
            vi "Mã thoát: 0 xong, 1 bị từ chối (cấu hình sai, không khởi động được), 2 không có cổng nào trả lời, 64 sai cách dùng";

        AboutRun en "Run the gateway in the foreground" vi "Chạy cổng ở tiền cảnh";
        AboutCheck en "Check a configuration and name every mistake" vi "Kiểm tra cấu hình và chỉ ra mọi lỗi";
        AboutReload
            en "Have the running gateway take over the changed configuration"
            vi "Yêu cầu cổng đang chạy áp dụng cấu hình đã sửa";
        AboutSessions en "List sessions" vi "Liệt kê phiên";
        AboutBib en "List bindings (BIB)" vi "Liệt kê ánh xạ (BIB)";
        AboutStatus en "Show the state of the running gateway" vi "Xem trạng thái cổng đang chạy";
        AboutDrops en "Show what was dropped and why" vi "Xem gói tin bị loại và lý do";
        AboutStop en "Stop the running gateway" vi "Dừng cổng đang chạy";
        AboutLab
            en "Build and use the laboratory: a whole network in namespaces"
            vi "Dựng và dùng phòng thí nghiệm: cả một mạng trong namespace";

        HelpHelp en "Print help" vi "In trợ giúp";
        HelpVersion en "Print the version" vi "In phiên bản";
        HelpLang
            en "Language, en or vi; the environment's if not given"
            vi "Ngôn ngữ, en hoặc vi; mặc định theo môi trường";
        HelpConfig { default: &'static str }
            en "Configuration file [default: {default}]"
            vi "Tệp cấu hình [mặc định: {default}]";
        HelpSocket
            en "Admin socket [default: the one in the configuration]"
            vi "Socket quản trị [mặc định: theo cấu hình]";
        HelpJson en "Output for machines" vi "Kết quả dạng JSON cho máy đọc";
        HelpNoHost
            en "Leave out the comparison with this machine's interfaces, addresses and routes, and the certificate files"
            vi "Không so với giao diện, địa chỉ và tuyến của máy này, và không đọc các tệp chứng chỉ";
        HelpOnly
            en "Run only this part, dns64 or translator; each can then be restarted by itself"
            vi "Chỉ chạy phần này, dns64 hoặc translator; mỗi phần có thể khởi động lại riêng";
        HelpAddr en "Only rows with this IPv6 or IPv4 address" vi "Chỉ các dòng có địa chỉ IPv6 hoặc IPv4 này";
        HelpPort en "Only rows with this port or ICMP identifier" vi "Chỉ các dòng có cổng hoặc định danh ICMP này";
        HelpUnit en "Only rows of this unit" vi "Chỉ các dòng của đơn vị này";
        HelpProtocol en "Only rows of this protocol: tcp, udp or icmp" vi "Chỉ các dòng của giao thức này: tcp, udp hoặc icmp";
        HelpLimit { default: usize }
            en "Largest number of rows [default: {default}]"
            vi "Số dòng tối đa [mặc định: {default}]";
        HelpAllRows en "All rows" vi "Mọi dòng";
        HelpAllDrops en "Counters that are zero, too" vi "Cả bộ đếm bằng 0";
        HelpFlush
            en "Remove the TUN device and its routes, too; without it they stay for the next start"
            vi "Gỡ cả thiết bị TUN và các tuyến; nếu không, chúng được giữ cho lần chạy sau";

        Error en "error" vi "lỗi";
        Warning en "warning" vi "cảnh báo";
        Remedy en "remedy" vi "cách xử lý";
        Sound { warnings: usize }
            en "the configuration can be used (warnings: {warnings})"
            vi "cấu hình dùng được (cảnh báo: {warnings})";
        Unsound { errors: usize, warnings: usize }
            en "the configuration cannot be used (errors: {errors}, warnings: {warnings})"
            vi "cấu hình không dùng được (lỗi: {errors}, cảnh báo: {warnings})";
        Unchanged en "nothing has changed" vi "không có gì thay đổi";
        Changed { keys: String } en "taken over: {keys}" vi "đã áp dụng: {keys}";
        Stopped en "stopped" vi "đã dừng";
        Flushed
            en "no gateway was running; its device and routes are removed"
            vi "không có cổng nào đang chạy; đã gỡ thiết bị và các tuyến";

        Protocol en "PROTO" vi "GIAO THỨC";
        Client en "CLIENT" vi "MÁY KHÁCH";
        Pool en "POOL4" vi "POOL4";
        Peer en "PEER" vi "ĐẦU XA";
        State en "STATE" vi "TRẠNG THÁI";
        Expires en "EXPIRES" vi "CÒN LẠI";
        Unit en "UNIT" vi "ĐƠN VỊ";
        Worker en "WORKER" vi "LUỒNG";
        Way en "PATH" vi "ĐƯỜNG";
        WayFast en "fast" vi "nhanh";
        WayOff en "TUN" vi "TUN";
        WayOpening en "TUN: opening or closing" vi "TUN: đang mở hoặc đóng";
        WayWaiting en "TUN: not yet both ways" vi "TUN: chưa đủ hai chiều";
        WayIcmp en "TUN: ICMP" vi "TUN: ICMP";
        WayStatic en "TUN: static" vi "TUN: tĩnh";
        WayHairpin en "TUN: hairpin" vi "TUN: vòng lại";
        WayRefresh en "TUN: inbound-refresh is off" vi "TUN: inbound-refresh tắt";
        WayFull en "TUN: no room yet" vi "TUN: chưa có chỗ";
        Sessions en "SESSIONS" vi "SỐ PHIÊN";
        Count en "COUNT" vi "SỐ LƯỢNG";
        Name en "NAME" vi "TÊN";
        Meaning en "MEANING" vi "Ý NGHĨA";
        NoRows en "no such row" vi "không có dòng nào";
        More en "there are more rows; --all shows them" vi "còn dòng nữa; dùng --all để xem hết";
        NoDrops en "nothing was dropped" vi "không có gói tin nào bị loại";

        Up { version: String, time: String }
            en "sampan {version}, up {time}"
            vi "sampan {version}, đã chạy {time}";
        HealthOk en "everything works" vi "mọi thứ hoạt động";
        HealthDegraded en "degraded" vi "hoạt động không đầy đủ";
        HealthFailed en "not translating" vi "không chuyển dịch";
        LabelTranslator en "translator" vi "chuyển dịch";
        TranslatorUp { time: String, changes: u64 }
            en "up for {time}; changes since the start: {changes}"
            vi "hoạt động từ {time}; số lần đổi trạng thái: {changes}";
        TranslatorDown { time: String, changes: u64 }
            en "down for {time}; changes since the start: {changes}"
            vi "ngừng từ {time}; số lần đổi trạng thái: {changes}";
        LabelConfig en "config" vi "cấu hình";
        LabelDevice en "device" vi "thiết bị";
        LabelSessions en "sessions" vi "phiên";
        Static en "static" vi "tĩnh";
        LabelSubscribers en "subscribers" vi "thuê bao";
        Blocks { leased: u64, blocks: u64, percent: u64 }
            en "{leased} of {blocks} blocks in use ({percent} %)"
            vi "{leased} trên {blocks} khối đang dùng ({percent} %)";
        Stateless { mappings: u64 }
            en "stateless; explicit mappings: {mappings}"
            vi "không trạng thái; ánh xạ tường minh: {mappings}";
        Of { now: u64, limit: u64 } en "{now} of {limit}" vi "{now} trên {limit}";
        Listens { listen: String, upstream: String }
            en "answers on {listen}, asks {upstream}"
            vi "trả lời trên {listen}, hỏi {upstream}";
        LabelFast en "fast path" vi "đường nhanh";
        FastOff { why: String } en "off: {why}" vi "tắt: {why}";
        FastOn { flows: u64, limit: u64, inside: String, outside: String }
            en "{flows} of {limit} flows; clients on {inside}, IPv4 on {outside}"
            vi "{flows} trên {limit} luồng; máy khách ở {inside}, IPv4 ở {outside}";
        FastCarried { packets6: u64, bytes6: u64, packets4: u64, bytes4: u64 }
            en "carried to IPv4 {packets6} packets, {bytes6} bytes; to IPv6 {packets4} packets, {bytes4} bytes"
            vi "đã chuyển sang IPv4 {packets6} gói, {bytes6} byte; sang IPv6 {packets4} gói, {bytes4} byte";
        FastUp { up: u64, dropped: u64, refused: u64 }
            en "passed up {up} packets, dropped {dropped}; flows without room: {refused}"
            vi "chuyển lên {up} gói, loại {dropped}; luồng không có chỗ: {refused}";
        In en "IN" vi "VÀO";
        Translated en "TRANSLATED" vi "CHUYỂN DỊCH";
        Absorbed en "ABSORBED" vi "GHÉP";
        Held en "HELD" vi "CHỜ";
        Returned en "HANDED BACK" vi "TRẢ MÁY";
        Dropped en "DROPPED" vi "LOẠI";
        Passed en "PASSED ON" vi "CHUYỂN ĐI";
        Taken en "TAKEN OVER" vi "NHẬN VỀ";
        OutTranslated en "OUT" vi "RA";
        OutPieces en "PIECES" vi "MẢNH";
        OutOriginated en "OWN ICMP" vi "ICMP TỰ GỬI";
        Bib en "BIB" vi "BIB";
        Native en "NATIVE" vi "IPV6 THẬT";
        Synthesised en "SYNTHESISED" vi "TỔNG HỢP";
        Ipv4Only en "IPV4 ONLY" vi "CHỈ IPV4";
        Failed en "FAILED" vi "LỖI";
        Other en "OTHER" vi "KHÁC";
        NoUnit en "(no unit)" vi "(không thuộc đơn vị nào)";
        Class en "CLASS" vi "LOẠI";
    }
}

faults! {
    /// What can go wrong between the operator and the gateway.
    pub enum CliFault {
        UnknownCommand { word: String, near: String }
            en "there is no command \"{word}\"" => "{near}"
            vi "không có lệnh \"{word}\"" => "{near}";
        UnknownFlag { word: String, near: String }
            en "there is no option {word} here" => "{near}"
            vi "ở đây không có tuỳ chọn {word}" => "{near}";
        BadArgument { argument: String, value: String, wanted: String }
            en "{argument} cannot be \"{value}\"" => "use {wanted}"
            vi "{argument} không thể là \"{value}\"" => "dùng {wanted}";
        WrongUsage { message: String }
            en "{message}" => "see `sampan --help`"
            vi "sai cách dùng: {message}" => "xem `sampan --help`";
        NoGateway { socket: String, reason: String }
            en "no gateway answers on {socket} ({reason})"
                => "start it with `systemctl start sampan` or `sampan run`, or name its socket with --socket"
            vi "không có cổng nào trả lời trên {socket} ({reason})"
                => "khởi động bằng `systemctl start sampan` hoặc `sampan run`, hoặc chỉ socket bằng --socket";
        NoPermission { socket: String }
            en "this user may not talk to {socket}"
                => "run the command as root or as a member of the group that owns the socket"
            vi "người dùng này không được phép nói chuyện với {socket}"
                => "chạy lệnh bằng root hoặc thành viên của nhóm sở hữu socket";
        Silent { socket: String, seconds: u64 }
            en "the gateway on {socket} did not answer within {seconds} s"
                => "look at its log with `journalctl -u sampan`; restart it if it hangs"
            vi "cổng trên {socket} không trả lời trong {seconds} giây"
                => "xem nhật ký bằng `journalctl -u sampan`; khởi động lại nếu bị treo";
        OddAnswer { socket: String, reason: String }
            en "the answer on {socket} makes no sense: {reason}"
                => "command and gateway may be of different versions; compare `sampan --version` with `sampan status`"
            vi "câu trả lời trên {socket} không hiểu được: {reason}"
                => "lệnh và cổng có thể khác phiên bản; so `sampan --version` với `sampan status`";
        StillStopping { seconds: u64 }
            en "the gateway has not ended after {seconds} s"
                => "look at its log with `journalctl -u sampan`"
            vi "cổng chưa dừng sau {seconds} giây"
                => "xem nhật ký bằng `journalctl -u sampan`";
        CannotPrint { reason: String }
            en "cannot write the output: {reason}"
                => "check the disk or pipe that standard output goes to"
            vi "không ghi được kết quả: {reason}"
                => "kiểm tra đĩa hoặc đường ống mà đầu ra chuẩn đi tới";
    }
}

texts! {
    /// Parts of the remedies for wrong usage.
    pub enum Hint {
        DidYouMean { near: String } en "did you mean {near}?" vi "có phải ý là {near}?";
        SeeHelp en "see `sampan --help`" vi "xem `sampan --help`";
        AnAddress en "an IPv6 or IPv4 address" vi "một địa chỉ IPv6 hoặc IPv4";
        ANumber { low: u64, high: u64 } en "a number from {low} to {high}" vi "một số từ {low} đến {high}";
        OneOf { values: String } en "one of {values}" vi "một trong {values}";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_are_complete() {
        crate::text::check_catalogue(Word::CATALOGUE);
        crate::text::check_catalogue(Hint::CATALOGUE);
        crate::text::check_catalogue(
            &CliFault::CATALOGUE
                .iter()
                .copied()
                .filter(|(_, en, _)| !en.starts_with('{'))
                .collect::<Vec<_>>(),
        );
    }
}
