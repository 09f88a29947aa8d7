//! Why the gateway cannot start or go on: cause, place, remedy, in both languages.

use crate::faults;
use crate::text::Both;

faults! {
    /// Why `sampan run` ended.
    pub enum StartError {
        Tun { reason: String }
            en "no TUN device: {reason}"
                => "run as root with /dev/net/tun, and with a tun.name that nobody else uses"
            vi "không có thiết bị TUN: {reason}"
                => "chạy bằng root với /dev/net/tun và đặt tun.name chưa ai dùng";
        Forwarding { key: String }
            en "this machine does not forward packets: {key} is 0"
                => "sysctl -w {key}=1, and keep it in /etc/sysctl.d"
            vi "máy này không chuyển tiếp gói tin: {key} bằng 0"
                => "chạy sysctl -w {key}=1 và ghi vào /etc/sysctl.d";
        NoIpv6
            en "this kernel has IPv6 switched off"
                => "start it without ipv6.disable=1"
            vi "nhân hệ điều hành này đã tắt IPv6"
                => "khởi động nhân không có ipv6.disable=1";
        Network { reason: String }
            en "{reason}"
                => "run as root or with CAP_NET_ADMIN, and look at `ip link` and `ip route`"
            vi "lỗi cấu hình mạng: {reason}"
                => "chạy bằng root hoặc có CAP_NET_ADMIN, và xem `ip link`, `ip route`";
        KeyFile { file: String, reason: String }
            en "cannot use the key file {file}: {reason}"
                => "it holds 32 hexadecimal digits and belongs to root; set nat64.key-file, or remove the file to get a new key"
            vi "không dùng được tệp khóa {file}: {reason}"
                => "tệp gồm 32 chữ số thập lục phân và thuộc về root; đặt nat64.key-file, hoặc xóa tệp để có khóa mới";
        AdminDirectory { path: String, reason: Both }
            en "no admin socket at {path}: {reason}"
                => "run as root, and let the directory of admin.socket be writable for root"
            vi "không có socket quản trị tại {path}: {reason}"
                => "chạy bằng root và để root ghi được vào thư mục của admin.socket";
        Admin { path: String, reason: Both }
            en "no admin socket at {path}: {reason}"
                => "stop the sampan that runs there (`sampan stop`), or give this one its own admin.socket and tun.name"
            vi "không có socket quản trị tại {path}: {reason}"
                => "dừng sampan đang chạy ở đó (`sampan stop`), hoặc đặt admin.socket và tun.name riêng cho bản này";
        Certificate { reason: Both }
            en "no DNS over TLS: {reason}"
                => "see `sampan check`"
            vi "không có DNS qua TLS: {reason}"
                => "xem `sampan check`";
        Dns { reason: String }
            en "no DNS64: {reason}"
                => "change dns64.listen, or stop what listens there (ss -lnptu sport = :53)"
            vi "không có DNS64: {reason}"
                => "đổi dns64.listen, hoặc dừng chương trình đang lắng nghe ở đó (ss -lnptu sport = :53)";
        Ra { interface: String, reason: String }
            en "no router advertisements on {interface}: {reason}"
                => "check ra.interfaces, and run as root or with CAP_NET_RAW"
            vi "không gửi được quảng bá bộ định tuyến trên {interface}: {reason}"
                => "kiểm tra ra.interfaces, và chạy bằng root hoặc có CAP_NET_RAW";
        NoDns64
            en "only the DNS64 shall run, but there is none in the configuration"
                => "add the table [dns64], or leave out --only"
            vi "chỉ chạy DNS64 nhưng cấu hình không có DNS64"
                => "thêm bảng [dns64], hoặc bỏ --only";
        Privileges { reason: String }
            en "cannot drop privileges: {reason}"
                => "start as root, or with CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAP_SETUID and CAP_SETGID"
            vi "không hạ được đặc quyền: {reason}"
                => "khởi động bằng root, hoặc với CAP_NET_ADMIN, CAP_NET_BIND_SERVICE, CAP_SETUID và CAP_SETGID";
        Fastpath { reason: Both, remedy: Both }
            en "no fast path, and fastpath.mode is \"require\": {reason}"
                => "{remedy}; or set fastpath.mode = \"auto\""
            vi "không có đường nhanh, mà fastpath.mode là \"require\": {reason}"
                => "{remedy}; hoặc đặt fastpath.mode = \"auto\"";
        SharedAddress { address: String, reason: Both, remedy: Both }
            en "pool4 shares {address} with this machine, which takes the fast path, and there is none: {reason}"
                => "{remedy}; or give pool4 an address that no machine has"
            vi "pool4 dùng chung {address} với máy này nên cần đường nhanh, mà không có: {reason}"
                => "{remedy}; hoặc dùng cho pool4 địa chỉ chưa máy nào mang";
        NotFlushed { path: String, reason: String }
            en "cannot remove the eBPF maps in {path}: {reason}"
                => "run `sampan stop --flush` as root"
            vi "không gỡ được các bảng eBPF trong {path}: {reason}"
                => "chạy `sampan stop --flush` bằng root";
        System { reason: String }
            en "{reason}" => "look at the limits of this machine (ulimit -a, free -m)"
            vi "lỗi hệ thống: {reason}" => "xem các giới hạn của máy này (ulimit -a, free -m)";
        WorkerFailed { worker: u16, reason: String }
            en "worker {worker} lost its TUN queue: {reason}"
                => "was the interface removed? start sampan again"
            vi "tiến trình xử lý {worker} mất hàng đợi TUN: {reason}"
                => "giao diện có bị xóa không? hãy khởi động lại sampan";
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Lang;

    #[test]
    fn a_reason_is_in_the_language_of_the_rest() {
        let both = |en: &str, vi: &str| Both::of(|lang| if lang == Lang::En { en } else { vi }.to_owned());
        let error = StartError::Fastpath { reason: both("why", "tại sao"), remedy: both("do", "làm") };
        assert!(error.what(Lang::En).ends_with(": why") && error.remedy(Lang::En).starts_with("do;"));
        assert!(error.what(Lang::Vi).ends_with(": tại sao") && error.remedy(Lang::Vi).starts_with("làm;"));
    }

    #[test]
    fn both_languages_are_complete() {
        crate::text::check_catalogue(StartError::CATALOGUE);
    }
}
