//! What can be wrong with a configuration, said so that it can be repaired: place, cause, remedy.

mod collect;

pub use collect::{Places, Problems};

use crate::faults;
use crate::text::Lang;

/// Whether the configuration can be used in spite of the problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It cannot be used.
    Error,
    /// It can, but probably not as meant.
    Warning,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Path of the key, such as `nat64.pool4[1].ports`; empty for the file as a whole.
    pub path: String,
    /// Line in the file, counted from 1, when there is one.
    pub line: Option<u32>,
    /// What it is.
    pub fault: Fault,
}

/// A problem in one language, as `--json` and the admin socket show it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ProblemView {
    /// `error` or `warning`.
    pub severity: String,
    /// Name of the fault, the same in every language.
    pub code: String,
    /// Path of the key; empty for the file as a whole.
    pub path: String,
    /// Line in the file.
    pub line: Option<u32>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem with the file as a whole.
    pub fn of_file(fault: Fault) -> Self {
        Self { severity: Severity::Error, path: String::new(), line: None, fault }
    }

    /// Whether the configuration cannot be used because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The problem in words.
    pub fn view(&self, lang: Lang) -> ProblemView {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        ProblemView {
            severity: severity.into(),
            code: self.fault.code(),
            path: self.path.clone(),
            line: self.line,
            message: self.fault.what(lang),
            remedy: self.fault.remedy(lang),
        }
    }
}

faults! {
    /// Every kind of mistake that a configuration can have.
    pub enum Fault {
        // The file and its notation.
        NotApplied { reason: String }
            en "the change was begun but not completed: {reason}"
                => "look at the log, then reload again or restart the gateway"
            vi "thay đổi đã bắt đầu nhưng chưa hoàn tất: {reason}"
                => "xem nhật ký, rồi nạp lại hoặc khởi động lại cổng";
        Unreadable { file: String, reason: String }
            en "cannot read {file}: {reason}"
                => "check the path and its permissions, or name another file with --config"
            vi "không đọc được {file}: {reason}"
                => "kiểm tra đường dẫn và quyền đọc, hoặc chỉ tệp khác bằng --config";
        Syntax { message: String }
            en "not TOML: {message}"
                => "strings stand in quotes, lists in [ ], tables start with [name]; docs/reference/config.md shows every key"
            vi "không đúng cú pháp TOML: {message}"
                => "chuỗi đặt trong dấu nháy, danh sách trong [ ], bảng bắt đầu bằng [tên]; docs/reference/config.md liệt kê mọi khoá";
        UnknownKey { key: String, known: String }
            en "there is no key `{key}` here"
                => "remove it; the keys here are {known}"
            vi "ở đây không có khoá `{key}`"
                => "xoá đi; các khoá ở đây là {known}";
        MisspeltKey { key: String, near: String }
            en "there is no key `{key}` here"
                => "did you mean `{near}`?"
            vi "ở đây không có khoá `{key}`"
                => "có phải ý là `{near}`?";
        WrongType { found: String, example: String }
            en "this value cannot be of type {found}"
                => "write it like {example}"
            vi "giá trị này không thể có kiểu {found}"
                => "viết theo mẫu {example}";
        BadValue { value: String, example: String }
            en "cannot understand \"{value}\""
                => "write it like {example}"
            vi "không hiểu \"{value}\""
                => "viết theo mẫu {example}";
        Missing { key: String, example: String }
            en "`{key}` is missing"
                => "add it, for example {example}"
            vi "thiếu `{key}`"
                => "bổ sung, ví dụ {example}";
        Empty
            en "the list is empty"
                => "name at least one entry"
            vi "danh sách rỗng"
                => "ghi ít nhất một mục";
        OutOfRange { value: String, low: u64, high: u64 }
            en "{value} is out of range"
                => "use a number from {low} to {high}"
            vi "{value} nằm ngoài phạm vi"
                => "dùng số từ {low} đến {high}";

        // Addresses and prefixes.
        HostBits { value: String, meant: String }
            en "{value} has bits set behind the prefix length"
                => "write {meant} if that is what you mean"
            vi "{value} có bit khác 0 sau độ dài tiền tố"
                => "viết {meant} nếu đó là ý định";
        PrefixLength { value: String, max: u8 }
            en "the prefix length of {value} is too large"
                => "use a length of at most {max}"
            vi "độ dài tiền tố của {value} quá lớn"
                => "dùng độ dài tối đa {max}";
        Pref64Length { len: u8 }
            en "/{len} is not a length of a translation prefix (RFC 6052 §2.2)"
                => "use /96 (recommended), /64, /56, /48, /40 or /32"
            vi "/{len} không phải độ dài hợp lệ của tiền tố chuyển dịch (RFC 6052 §2.2)"
                => "dùng /96 (khuyến nghị), /64, /56, /48, /40 hoặc /32";
        Pref64Wide { value: String }
            en "{value} takes the whole allocation of a provider for translation (RFC 6052 §3.3)"
                => "use a /40 for a provider with a /32, a /56 for a site with a /48, a /64 or /96 between networks of your own"
            vi "{value} dùng cả khối địa chỉ của một nhà cung cấp cho việc chuyển dịch (RFC 6052 §3.3)"
                => "dùng /40 cho nhà cung cấp có /32, /56 cho đơn vị có /48, /64 hoặc /96 giữa các mạng của mình";
        OctetU
            en "bits 64 to 71 of a translation prefix must be zero (RFC 6052 §2.2)"
                => "choose a prefix whose fifth group is 0 to ff, for example 2001:db8:64::/96"
            vi "các bit 64 đến 71 của tiền tố chuyển dịch phải bằng 0 (RFC 6052 §2.2)"
                => "chọn tiền tố có nhóm thứ năm từ 0 đến ff, ví dụ 2001:db8:64::/96";
        NotUnicast { value: String }
            en "{value} is not ordinary unicast space and cannot be used here"
                => "use addresses that hosts can have"
            vi "{value} không phải vùng địa chỉ unicast thông thường nên không dùng được ở đây"
                => "dùng địa chỉ mà máy trạm có thể mang";
        Overlap { value: String, other: String, at: String }
            en "{value} overlaps {other} ({at})"
                => "make them disjoint"
            vi "{value} chồng lấn với {other} ({at})"
                => "tách để không chồng lấn";
        NearWellKnown { value: String }
            en "{value} overlaps the well-known prefix without being it (RFC 6052 §2.1)"
                => "use exactly 64:ff9b::/96, or a prefix from your own space or from 64:ff9b:1::/48"
            vi "{value} chồng lấn tiền tố well-known nhưng không trùng với nó (RFC 6052 §2.1)"
                => "dùng đúng 64:ff9b::/96, hoặc tiền tố trong vùng của mình hay trong 64:ff9b:1::/48";
        InPool6 { value: String, pool6: String }
            en "{value} lies in pool6 {pool6}, whose addresses stand for IPv4 hosts"
                => "choose it from outside pool6"
            vi "{value} nằm trong pool6 {pool6}, vùng dành đại diện cho máy IPv4"
                => "chọn giá trị ngoài pool6";
        InPool4 { value: String, pool4: String }
            en "{value} lies in pool4 {pool4}, which belongs to the translator"
                => "choose an address from outside pool4"
            vi "{value} nằm trong pool4 {pool4}, vùng của bộ chuyển dịch"
                => "chọn địa chỉ ngoài pool4";

        // Pools and units.
        UnknownPool { value: String }
            en "no pool4 is named {value}"
                => "write name = \"{value}\" in a [[nat64.pool4]], or take pool out of the unit"
            vi "không có pool4 nào tên {value}"
                => "ghi name = \"{value}\" trong một [[nat64.pool4]], hoặc bỏ pool khỏi đơn vị";
        UnusedPool { value: String }
            en "no unit uses the pool {value}: nobody gets ports of these addresses"
                => "write pool = \"{value}\" in a [[unit]], or take the name away"
            vi "không đơn vị nào dùng pool {value}: không ai được cấp cổng của các địa chỉ này"
                => "ghi pool = \"{value}\" trong một [[unit]], hoặc bỏ tên";
        NobodyDeclared
            en "permuted blocks belong to subscribers that units declare, and there is no unit"
                => "declare [[unit]] with their prefixes, or use \"dynamic\""
            vi "khối hoán vị thuộc về thuê bao do các đơn vị khai báo, mà chưa có đơn vị nào"
                => "khai báo [[unit]] cùng prefix của chúng, hoặc dùng \"dynamic\"";
        TooManyDeclared { declared: u64, blocks: u64 }
            en "the units declare {declared} subscribers for {blocks} blocks"
                => "use a shorter nat64.subscriber prefix, smaller blocks or a larger pool4, or \"dynamic\""
            vi "các đơn vị khai báo {declared} thuê bao cho {blocks} khối"
                => "dùng nat64.subscriber ngắn hơn, khối nhỏ hơn hoặc pool4 lớn hơn, hoặc \"dynamic\"";
        ReserveTooLarge { reserved: u64, sessions: u32 }
            en "the units reserve {reserved} of {sessions} sessions and leave none to share"
                => "reserve less, or raise nat64.sessions"
            vi "các đơn vị giữ riêng {reserved} trên {sessions} phiên, không còn phiên dùng chung"
                => "giảm reserve, hoặc tăng nat64.sessions";
        // pool4.
        PortsReversed { low: u16, high: u16 }
            en "the port range {low}-{high} runs backwards"
                => "write {high}-{low}"
            vi "dải cổng {low}-{high} bị ngược"
                => "viết {high}-{low}";
        PortZero
            en "port 0 cannot be given out"
                => "start at 1, or better at 1024"
            vi "không thể cấp cổng 0"
                => "bắt đầu từ 1, tốt hơn là từ 1024";
        PortsBelowBlock { ports: u32, block: u16 }
            en "{ports} ports are less than one block of {block}"
                => "widen the range or lower nat64.block-size"
            vi "{ports} cổng ít hơn một khối {block} cổng"
                => "mở rộng dải cổng hoặc giảm nat64.block-size";
        PortsLeftOver { left: u32, block: u16 }
            en "{left} ports stay unused, because only whole blocks of {block} are given out"
                => "make the range a multiple of nat64.block-size"
            vi "{left} cổng sẽ không được dùng vì chỉ cấp nguyên khối {block} cổng"
                => "đặt dải cổng là bội số của nat64.block-size";
        PoolTooLarge { addresses: u64, max: u64 }
            en "pool4 has {addresses} addresses; the tables hold {max}"
                => "use a smaller pool4; a thousand hosts need about ten addresses"
            vi "pool4 có {addresses} địa chỉ; bảng chỉ chứa {max}"
                => "thu nhỏ pool4; một nghìn máy cần khoảng mười địa chỉ";
        PoolTooSmall { blocks: u64, workers: u16 }
            en "pool4 has {blocks} blocks of ports for {workers} workers"
                => "use a larger pool4, a smaller nat64.block-size or fewer nat64.workers"
            vi "pool4 có {blocks} khối cổng cho {workers} luồng xử lý"
                => "mở rộng pool4, giảm nat64.block-size hoặc giảm nat64.workers";
        InterfaceNeeded
            en "mode \"onlink\" needs the interface where the addresses answer"
                => "add interface = \"eth0\", with the name of the IPv4 interface"
            vi "chế độ \"onlink\" cần biết giao diện mà các địa chỉ trả lời"
                => "thêm interface = \"eth0\" với tên giao diện phía IPv4";
        InterfaceUnused
            en "an interface has only a meaning in mode \"onlink\""
                => "remove it, or set mode = \"onlink\""
            vi "giao diện chỉ có ý nghĩa ở chế độ \"onlink\""
                => "xoá đi, hoặc đặt mode = \"onlink\"";
        InterfaceName { value: String }
            en "\"{value}\" cannot be the name of an interface"
                => "use 1 to 15 characters without spaces, slashes, colons and percent signs"
            vi "\"{value}\" không thể là tên giao diện"
                => "dùng 1 đến 15 ký tự, không có dấu cách, gạch chéo, hai chấm và phần trăm";
        InterfaceIsTun { value: String }
            en "{value} is the translator's own device"
                => "name the interface towards the IPv4 network"
            vi "{value} là thiết bị của chính bộ chuyển dịch"
                => "ghi giao diện nối tới mạng IPv4";

        // Numbers of the engine.
        NotPowerOfTwo { value: u64 }
            en "{value} is not a power of two"
                => "use 64, 128, 256, 512, 1024, 2048 or 4096"
            vi "{value} không phải luỹ thừa của hai"
                => "dùng 64, 128, 256, 512, 1024, 2048 hoặc 4096";
        TimerTooShort { value: u64, floor: u64, source: String }
            en "{value} s is shorter than {source} allows"
                => "use at least {floor}"
            vi "{value} giây ngắn hơn mức {source} cho phép"
                => "dùng ít nhất {floor}";
        TimerShort { value: u64, usual: u64, source: String }
            en "{value} s is shorter than {source} recommends; slow handshakes will be cut off"
                => "use {usual} unless an attack forces you lower"
            vi "{value} giây ngắn hơn mức {source} khuyến nghị; kết nối chậm sẽ bị cắt"
                => "dùng {usual} trừ khi phải hạ thấp vì bị tấn công";
        MtuOrder { lowest: u64, mtu6: u64 }
            en "lowest-ipv6-mtu {lowest} is larger than mtu6 {mtu6}"
                => "lower it to {mtu6} or less; 1280 always works"
            vi "lowest-ipv6-mtu {lowest} lớn hơn mtu6 {mtu6}"
                => "giảm xuống {mtu6} hoặc nhỏ hơn; 1280 luôn dùng được";

        // Units and allowed destinations.
        BadName { value: String }
            en "\"{value}\" cannot be a name"
                => "use 1 to 100 visible characters"
            vi "\"{value}\" không dùng làm tên được"
                => "dùng 1 đến 100 ký tự nhìn thấy được";
        DuplicateName { value: String, at: String }
            en "the name \"{value}\" is already taken by {at}"
                => "give every unit a name of its own"
            vi "tên \"{value}\" đã dùng ở {at}"
                => "đặt cho mỗi đơn vị một tên riêng";
        Duplicate { value: String, at: String }
            en "{value} is already named in {at}"
                => "name it once"
            vi "{value} đã được ghi ở {at}"
                => "chỉ ghi một lần";
        StaticNotServed { value: String }
            en "{value} belongs to no unit, so it would not be served"
                => "add its network to a unit, or leave the mapping out"
            vi "{value} không thuộc đơn vị nào nên sẽ không được phục vụ"
                => "thêm mạng của nó vào một đơn vị, hoặc bỏ ánh xạ này";
        StaticNotInPool { value: String }
            en "{value} lies in no pool4"
                => "use an address of nat64.pool4, or add one there"
            vi "{value} không nằm trong pool4 nào"
                => "dùng một địa chỉ của nat64.pool4, hoặc thêm vào đó";
        StaticPortGivenOut { port: u16, low: u16, high: u16 }
            en "port {port} is one of those that clients are given ({low}-{high})"
                => "use another port, or narrow the ports of that nat64.pool4"
            vi "cổng {port} nằm trong dải cấp cho máy khách ({low}-{high})"
                => "dùng cổng khác, hoặc thu hẹp ports của nat64.pool4 đó";
        StaticShared { value: String }
            en "{value} is shared with this machine, and such an address has no static mappings"
                => "give the mapping an address that is routed here or on-link"
            vi "{value} dùng chung với máy này, và địa chỉ như vậy không có ánh xạ tĩnh"
                => "dùng cho ánh xạ một địa chỉ được định tuyến tới đây hoặc on-link";
        SharedPrefix { value: String }
            en "{value} is more than one address, and a machine shares single ones"
                => "write each address with /32"
            vi "{value} gồm nhiều địa chỉ, mà máy chỉ dùng chung từng địa chỉ một"
                => "ghi từng địa chỉ với /32";
        SharedReach
            en "clients do not reach this machine by an address that it shares with pool4"
                => "remove nat64.reach-gateway; clients use the IPv6 address of this machine"
            vi "máy khách không tới được máy này qua địa chỉ mà nó dùng chung với pool4"
                => "xoá nat64.reach-gateway; máy khách dùng địa chỉ IPv6 của máy này";
        SharedNeedsFastPath
            en "pool4 shares an address with this machine, and only the fast path can tell whose its packets are"
                => "set fastpath.mode = \"auto\", or give pool4 an address of its own"
            vi "pool4 dùng chung địa chỉ với máy này, và chỉ đường nhanh mới phân biệt được gói tin của ai"
                => "đặt fastpath.mode = \"auto\", hoặc dùng cho pool4 địa chỉ riêng";
        SharedSubscriber { value: String, subscriber: u8 }
            en "{value} is smaller than one subscriber (/{subscriber}); hosts of different units may share port blocks"
                => "raise nat64.subscriber to the length of the smallest unit prefix"
            vi "{value} nhỏ hơn một thuê bao (/{subscriber}); máy của các đơn vị khác nhau có thể dùng chung khối cổng"
                => "tăng nat64.subscriber bằng độ dài tiền tố đơn vị nhỏ nhất";
        NoUnits
            en "no [[unit]] is declared: every host that is routed here is served"
                => "declare the organisations with their prefixes, so that strangers are refused"
            vi "chưa khai báo [[unit]] nào: mọi máy được định tuyến tới đây đều được phục vụ"
                => "khai báo các đơn vị cùng tiền tố của họ để từ chối máy lạ";
        AllowWithoutEffect
            en "the allow list has no effect: under 64:ff9b::/96 non-global IPv4 is never translated (RFC 6052 §3.1)"
                => "translate under a prefix of your own, for example 2001:db8:64::/96"
            vi "danh sách cho phép không có tác dụng: dưới 64:ff9b::/96 không bao giờ chuyển dịch IPv4 nội bộ (RFC 6052 §3.1)"
                => "chuyển dịch dưới tiền tố của mình, ví dụ 2001:db8:64::/96";
        AllowGlobal { value: String }
            en "{value} is global and needs no permission"
                => "remove the entry; the list is for private and other special-purpose destinations"
            vi "{value} là địa chỉ toàn cầu, không cần cho phép"
                => "xoá mục này; danh sách chỉ dành cho đích nội bộ hoặc chuyên dụng";

        // The stateless translator.
        TwoTranslators
            en "[siit] and [nat64] cannot both be there: one gateway is either stateless or stateful"
                => "remove one of the two tables, or run a second gateway"
            vi "[siit] và [nat64] không thể cùng có: một cổng chỉ chạy không trạng thái hoặc có trạng thái"
                => "xoá một trong hai bảng, hoặc chạy thêm một cổng";
        NothingMapped
            en "no IPv6 node has an IPv4 address, so nothing can be translated"
                => "add [[siit.eam]] with ipv4 and ipv6, or translatable4"
            vi "chưa máy IPv6 nào có địa chỉ IPv4 nên không gói nào chuyển dịch được"
                => "thêm [[siit.eam]] với ipv4 và ipv6, hoặc translatable4";
        EamSuffix { ipv4: String, ipv6: String }
            en "{ipv4} has more addresses than {ipv6} (RFC 7757 §3.2)"
                => "use a shorter ipv6 prefix or a longer ipv4 prefix: as many bits behind both, or more in ipv6"
            vi "{ipv4} có nhiều địa chỉ hơn {ipv6} (RFC 7757 §3.2)"
                => "rút ngắn tiền tố ipv6 hoặc kéo dài tiền tố ipv4: số bit phía sau phải bằng nhau, hoặc ipv6 nhiều hơn";
        EamOverlap { value: String, other: String, at: String }
            en "{value} lies within {other} ({at}): the two directions may disagree there (RFC 7757 §5)"
                => "leave it if the exception is meant, else make them disjoint"
            vi "{value} nằm trong {other} ({at}): hai chiều có thể không khớp nhau ở đó (RFC 7757 §5)"
                => "giữ nguyên nếu đó là ngoại lệ có chủ ý, nếu không hãy tách ra";
        SimpleHidesMappings
            en "with hairpin = \"simple\" the source of a packet from IPv4 is never mapped explicitly (RFC 7757 §4.2.1), so answers of these nodes get the wrong address"
                => "use hairpin = \"intrinsic\", or home = \"ipv6\""
            vi "với hairpin = \"simple\", nguồn của gói từ IPv4 không bao giờ theo ánh xạ tường minh (RFC 7757 §4.2.1), nên trả lời của các máy này mang sai địa chỉ"
                => "dùng hairpin = \"intrinsic\", hoặc home = \"ipv6\"";
        WellKnownStateless
            en "a stateless translator should have a prefix of its own (RFC 6052 §3.3): under 64:ff9b::/96 private IPv4 is never translated, and IPv6 nodes may not have addresses in it"
                => "use a prefix from your own space, for example 2001:db8:64::/96"
            vi "bộ chuyển dịch không trạng thái nên có tiền tố riêng (RFC 6052 §3.3): dưới 64:ff9b::/96 không bao giờ chuyển dịch IPv4 nội bộ, và máy IPv6 không được mang địa chỉ trong đó"
                => "dùng tiền tố trong vùng của mình, ví dụ 2001:db8:64::/96";
        NoIcmpPool
            en "without icmp6-pool4 the ICMP errors of IPv6 routers are dropped: path MTU discovery from IPv4 fails, and traceroute shows stars (RFC 6791)"
                => "add icmp6-pool4 with one public IPv4 address that is routed here"
            vi "không có icmp6-pool4 thì lỗi ICMP của router IPv6 bị bỏ: dò MTU từ phía IPv4 thất bại và traceroute chỉ thấy dấu sao (RFC 6791)"
                => "thêm icmp6-pool4 với một địa chỉ IPv4 công cộng được định tuyến tới đây";
        PrivateIcmpPool { value: String }
            en "{value} is private: errors from it are likely to be filtered (RFC 6791 §3.1)"
                => "use public addresses"
            vi "{value} là địa chỉ nội bộ: lỗi gửi từ đó dễ bị lọc (RFC 6791 §3.1)"
                => "dùng địa chỉ công cộng";

        // DNS64.
        PortMissing
            en "port 0 is not a port"
                => "use 53, or leave the port out"
            vi "cổng 0 không phải là cổng"
                => "dùng 53, hoặc bỏ phần cổng";
        DnsLoop { value: String, listen: String }
            en "the upstream {value} is our own address {listen}: every question would come back"
                => "name a resolver that is not this DNS64, or give it another port"
            vi "máy chủ upstream {value} chính là địa chỉ của ta {listen}: mọi câu hỏi sẽ quay lại"
                => "ghi một máy chủ phân giải khác, hoặc dùng cổng khác";
        TlsNowhere
            en "no address to answer on over TLS or HTTPS"
                => "add dns64.tls.listen or dns64.tls.https, or leave dns64.tls out"
            vi "không có địa chỉ nào để trả lời qua TLS hoặc HTTPS"
                => "thêm dns64.tls.listen hoặc dns64.tls.https, hoặc bỏ dns64.tls";
        PemUnreadable { file: String, reason: String }
            en "cannot read {file}: {reason}"
                => "check the path, and let the user `sampan` read it: chgrp sampan {file} && chmod 640 {file}; the directories above it have to let that user pass"
            vi "không đọc được {file}: {reason}"
                => "kiểm tra đường dẫn và cho người dùng `sampan` quyền đọc: chgrp sampan {file} && chmod 640 {file}; các thư mục phía trên cũng phải cho người dùng đó đi qua";
        CertificateUnusable { reason: String }
            en "the certificate cannot be used: {reason}"
                => "both files are PEM: the server's certificate first, its issuers behind it; the key without a passphrase, and the one that the certificate was made for"
            vi "không dùng được chứng chỉ: {reason}"
                => "cả hai tệp ở dạng PEM: chứng chỉ của máy chủ trước, các bên cấp phát theo sau; khóa không có mật khẩu và đúng là khóa của chứng chỉ đó";
        AuthoritiesUnusable { file: String, reason: String }
            en "no certificate authorities in {file}: {reason}"
                => "name a PEM file with the authorities' certificates, as in /etc/ssl/certs/ca-certificates.crt"
            vi "{file} không có chứng chỉ của cơ quan chứng thực: {reason}"
                => "ghi một tệp PEM có chứng chỉ của các cơ quan chứng thực, như /etc/ssl/certs/ca-certificates.crt";
        NoAuthorities { reason: String }
            en "nobody vouches for the resolvers that are asked over TLS or HTTPS: {reason}"
                => "install the package ca-certificates, or name the authorities with dns64.upstream-ca"
            vi "không có cơ quan nào chứng thực cho các máy chủ phân giải được hỏi qua TLS hoặc HTTPS: {reason}"
                => "cài gói ca-certificates, hoặc chỉ các cơ quan chứng thực bằng dns64.upstream-ca";
        NotOfTranslator { value: String }
            en "{value} is no prefix of the translator: what clients send there would be lost"
                => "add it to nat64.pool6 (or siit.prefix), or use one that is there"
            vi "{value} không phải tiền tố của bộ chuyển dịch: gói gửi tới đó sẽ mất"
                => "thêm vào nat64.pool6 (hoặc siit.prefix), hoặc dùng tiền tố đã có";
        ViewForNobody
            en "the view has no clients"
                => "add units = [\"…\"] or clients = [\"2001:db8:6::/64\"]"
            vi "khung nhìn này không có máy khách nào"
                => "thêm units = [\"…\"] hoặc clients = [\"2001:db8:6::/64\"]";
        UnknownUnit { name: String }
            en "there is no unit {name}"
                => "write it as in [[unit]], or declare it there"
            vi "không có đơn vị {name}"
                => "viết đúng như trong [[unit]], hoặc khai báo ở đó";
        BadRecord { value: String }
            en "{value} is not a record of this zone"
                => "write it as \"portal 300 A 192.0.2.1\": owner inside the zone, TTL if wanted, then A, AAAA, CNAME, PTR or TXT and its data"
            vi "{value} không phải bản ghi của vùng này"
                => "viết như \"portal 300 A 192.0.2.1\": tên trong vùng, TTL nếu cần, rồi A, AAAA, CNAME, PTR hoặc TXT và dữ liệu";
        AliasWithOthers { name: String }
            en "{name} is an alias (CNAME) and has other records, too (RFC 2181 §10.1)"
                => "remove the alias or the other records"
            vi "{name} là bí danh (CNAME) nhưng còn có bản ghi khác (RFC 2181 §10.1)"
                => "xoá bí danh hoặc các bản ghi kia";
        NobodyMayAsk
            en "without units and without dns64.allow only this machine may ask"
                => "add allow = [\"2001:db8:6::/64\"] with the prefixes of the clients"
            vi "không có đơn vị và không có dns64.allow thì chỉ máy này được hỏi"
                => "thêm allow = [\"2001:db8:6::/64\"] với các tiền tố của máy khách";

        // Files and sockets.
        NotAbsolute { value: String }
            en "\"{value}\" is not an absolute path"
                => "start it with /"
            vi "\"{value}\" không phải đường dẫn tuyệt đối"
                => "bắt đầu bằng /";
        SocketPathLong { value: String }
            en "the path \"{value}\" is too long for a Unix socket"
                => "use at most 107 bytes, for example /run/sampan/admin.sock"
            vi "đường dẫn \"{value}\" quá dài cho một Unix socket"
                => "dùng tối đa 107 byte, ví dụ /run/sampan/admin.sock";

        // Reload.
        NeedsRestart { key: String }
            en "`{key}` cannot be changed while the gateway runs; nothing was changed"
                => "restart it with `systemctl restart sampan`, or undo the change of this key"
            vi "không thể đổi `{key}` khi cổng đang chạy; chưa có gì thay đổi"
                => "khởi động lại bằng `systemctl restart sampan`, hoặc bỏ thay đổi của khoá này";

        // This machine.
        PoolIsHost { address: String, interface: String }
            en "{address} is an address of this machine (on {interface})"
                => "share it: prefix = \"{address}/32\", mode = \"shared\", and ports that this machine does not use; or give pool4 an address that no machine has"
            vi "{address} là địa chỉ của chính máy này (trên {interface})"
                => "dùng chung: prefix = \"{address}/32\", mode = \"shared\" và ports mà máy này không dùng; hoặc dùng cho pool4 địa chỉ chưa máy nào mang";
        SharedNotHere { address: String }
            en "{address} is not an address of this machine now"
                => "mode = \"shared\" is for an address of its own: add it to an interface first, or use mode = \"routed\" or \"onlink\""
            vi "{address} hiện không phải địa chỉ của máy này"
                => "mode = \"shared\" chỉ dành cho địa chỉ của chính máy: hãy gán nó cho giao diện trước, hoặc dùng mode = \"routed\" hay \"onlink\"";
        SharedEphemeral { low: u16, high: u16, ephemeral: String, free: String }
            en "this machine takes the ports of its own connections from {ephemeral}, so {low}-{high} may be taken"
                => "keep them free: sysctl -w net.ipv4.ip_local_reserved_ports={free} (and in /etc/sysctl.d), or choose other ports"
            vi "máy này lấy cổng cho kết nối của chính nó trong {ephemeral}, nên {low}-{high} có thể bị dùng"
                => "chừa chúng ra: sysctl -w net.ipv4.ip_local_reserved_ports={free} (và ghi vào /etc/sysctl.d), hoặc chọn cổng khác";
        SharedPortInUse { ports: String }
            en "programs of this machine listen on ports of this range: {ports}"
                => "leave these out of `ports`, or have the programs listen elsewhere (ss -lntup)"
            vi "chương trình trên máy này đang lắng nghe ở các cổng trong dải này: {ports}"
                => "bỏ các cổng đó khỏi `ports`, hoặc cho chương trình lắng nghe nơi khác (ss -lntup)";
        SharedPortConnected { ports: String }
            en "connections of this machine use ports of this range: {ports}; they will not get their answers"
                => "end them, or leave these out of `ports` (ss -ntup)"
            vi "kết nối của máy này đang dùng các cổng trong dải này: {ports}; chúng sẽ không nhận được trả lời"
                => "kết thúc chúng, hoặc bỏ các cổng đó khỏi `ports` (ss -ntup)";
        Pool6IsHost { address: String, interface: String }
            en "{address} on {interface} lies in this prefix: the machine would keep its packets for itself"
                => "use a prefix of its own for pool6, or take the address away"
            vi "{address} trên {interface} nằm trong tiền tố này: máy sẽ giữ gói tin cho riêng mình"
                => "dùng tiền tố riêng cho pool6, hoặc gỡ địa chỉ đó";
        MappedIsHost { address: String, interface: String }
            en "{address} is an address of this machine (on {interface}): it would keep the packets for itself"
                => "map another address, or take {address} off {interface}"
            vi "{address} là địa chỉ của chính máy này (trên {interface}): máy sẽ giữ gói tin cho riêng mình"
                => "ánh xạ địa chỉ khác, hoặc gỡ {address} khỏi {interface}";
        OnLinkMapped { value: String, interface: String }
            en "{value} lies in the subnet of {interface}: neighbours will look for it by ARP and nobody answers"
                => "use addresses that the router sends here by a route"
            vi "{value} nằm trong mạng con của {interface}: máy lân cận sẽ tìm bằng ARP và không ai trả lời"
                => "dùng địa chỉ mà router định tuyến tới đây";
        NoInterface { value: String, present: String }
            en "this machine has no interface {value}"
                => "use one of {present}"
            vi "máy này không có giao diện {value}"
                => "dùng một trong {present}";
        NotOnLink { value: String, interface: String }
            en "{value} is in no IPv4 subnet of {interface}; neighbours will not ask for it there"
                => "take pool4 from the subnet of {interface}, or use mode = \"routed\" and a route on the router"
            vi "{value} không thuộc mạng con IPv4 nào của {interface}; máy lân cận sẽ không hỏi nó ở đó"
                => "lấy pool4 từ mạng con của {interface}, hoặc dùng mode = \"routed\" và định tuyến trên router";
        OnLinkButRouted { value: String, interface: String }
            en "{value} lies in the subnet of {interface}: neighbours will look for it by ARP and nobody answers"
                => "set mode = \"onlink\" and interface = \"{interface}\""
            vi "{value} nằm trong mạng con của {interface}: máy lân cận sẽ tìm bằng ARP và không ai trả lời"
                => "đặt mode = \"onlink\" và interface = \"{interface}\"";
        RoutedElsewhere { value: String, route: String, interface: String }
            en "this machine routes {route} to {interface}, so replies to {value} would not reach the translator"
                => "remove that route, or choose another prefix"
            vi "máy này định tuyến {route} tới {interface}, nên gói trả về {value} không tới bộ chuyển dịch"
                => "xoá tuyến đó, hoặc chọn tiền tố khác";
        ListenNotHere { value: String }
            en "no interface of this machine has the address {value} now"
                => "add the address to an interface before `sampan run`, or listen on [::]:53"
            vi "hiện không giao diện nào của máy này có địa chỉ {value}"
                => "gán địa chỉ cho một giao diện trước khi `sampan run`, hoặc lắng nghe trên [::]:53";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_are_complete() {
        crate::text::check_catalogue(Fault::CATALOGUE);
    }
}
