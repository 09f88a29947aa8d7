//! Why there is no fast path, for the operator.

use crate::faults;

faults! {
    /// Why the fast path cannot be had. Without it everything goes through the TUN.
    pub enum Fault {
        NoPrivileges { reason: String }
            en "not allowed to load eBPF programs ({reason})"
                => "start as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
            vi "không được phép nạp chương trình eBPF ({reason})"
                => "khởi động bằng root, hoặc với CAP_BPF, CAP_NET_ADMIN và CAP_PERFMON";
        OldKernel { found: String }
            en "kernel {found} is older than 6.1"
                => "use a kernel from 6.1 on; Debian 12 has one"
            vi "nhân {found} cũ hơn 6.1"
                => "dùng nhân từ 6.1 trở lên; Debian 12 có sẵn";
        Refused { reason: String }
            en "the kernel refuses the eBPF programs: {reason}"
                => "tell the authors the kernel's version and this message; until then set fastpath = \"off\""
            vi "nhân hệ điều hành từ chối chương trình eBPF: {reason}"
                => "báo cho tác giả phiên bản nhân và thông báo này; trước mắt đặt fastpath = \"off\"";
        Override { reason: String }
            en "switched off for this run: {reason}"
                => "start without that override"
            vi "đã bị tắt cho lần chạy này: {reason}"
                => "khởi động lại không có thiết lập đó";
        Pins { path: String, reason: String }
            en "cannot keep the eBPF maps in {path}: {reason}"
                => "let it be a directory on a bpf file system (mount -t bpf bpf {path}) that root may write"
            vi "không giữ được các bảng eBPF trong {path}: {reason}"
                => "dùng một thư mục trên hệ tập tin bpf (mount -t bpf bpf {path}) mà root ghi được";
        Layout { path: String, reason: String }
            en "the eBPF maps in {path} are another version's: {reason}"
                => "sampan stop --flush, then start again; established flows go on through the TUN"
            vi "các bảng eBPF trong {path} thuộc phiên bản khác: {reason}"
                => "chạy sampan stop --flush rồi khởi động lại; các luồng đang có tiếp tục qua TUN";
        Interface { name: String, reason: String }
            en "no fast path on {name}: {reason}"
                => "name Ethernet-like interfaces that carry IP themselves (eth0, eth0.100, br0)"
            vi "không có đường nhanh trên {name}: {reason}"
                => "chỉ định các giao diện kiểu Ethernet tự mang IP (eth0, eth0.100, br0)";
        TooManyPools { found: usize, most: usize }
            en "{found} prefixes of one family, and the programs look at {most} at most"
                => "join prefixes of pool4 or pool6"
            vi "{found} tiền tố cùng một họ địa chỉ, chương trình chỉ xét tối đa {most}"
                => "gộp các tiền tố của pool4 hoặc pool6";
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.what(crate::text::Lang::En))
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    #[test]
    fn both_languages_are_complete() {
        crate::text::check_catalogue(super::Fault::CATALOGUE);
    }
}
