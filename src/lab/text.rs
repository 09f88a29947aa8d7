//! What the laboratory says to people, in English and Vietnamese. `{}` stands for a value, in order.

use std::env;

/// A language of the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Lang {
    /// English.
    En,
    /// Tiếng Việt.
    Vi,
}

/// All messages of the demonstration in one language.
#[derive(Debug)]
pub struct Text {
    /// Heading.
    pub title: &'static str,
    /// What is going to happen.
    pub intro: &'static str,
    /// The network is being built.
    pub building: &'static str,
    /// It is built: seconds.
    pub built: &'static str,
    /// Step titles, in order.
    pub address: &'static str,
    /// The name's IPv6 address is made from its IPv4 address.
    pub dns64: &'static str,
    /// The web page.
    pub page: &'static str,
    /// Ping.
    pub ping: &'static str,
    /// Traceroute.
    pub route: &'static str,
    /// Bulk transfer.
    pub bulk: &'static str,
    /// Session table.
    pub sessions: &'static str,
    /// Counters.
    pub counters: &'static str,
    /// Results, in the same order.
    pub address_ok: &'static str,
    /// The address found.
    pub dns64_ok: &'static str,
    /// The address the server saw.
    pub page_ok: &'static str,
    /// Replies of requests.
    pub ping_ok: &'static str,
    /// Number of hops.
    pub route_ok: &'static str,
    /// The rate.
    pub bulk_ok: &'static str,
    /// Sessions of the client.
    pub sessions_ok: &'static str,
    /// Counters read.
    pub counters_ok: &'static str,
    /// A step failed: why.
    pub failed: &'static str,
    /// Where to look.
    pub look: &'static str,
    /// The gateway's last words.
    pub last_words: &'static str,
    /// The network is being removed.
    pub removing: &'static str,
    /// Everything worked: steps, seconds.
    pub all_ok: &'static str,
    /// Some steps failed: number, names.
    pub some_failed: &'static str,
    /// What to try next.
    pub next: &'static str,
}

const EN: Text = Text {
    title: "Sampan demonstration: an IPv6-only client uses an IPv4-only server",
    intro: "Everything runs in network namespaces of this machine, with fictitious names and addresses.\n\
            client1, client2 (IPv6 only) -- gw (Sampan) -- router (IPv4 only) -- server (IPv4 only)",
    building: "Building the network and starting nginx, NSD, iperf3 and the gateway ...",
    built: "ready after {} s",
    address: "The client has IPv6 addresses only",
    dns64: "DNS64 gives the IPv4-only name an IPv6 address",
    page: "The client reads a page of the IPv4-only web server, by name",
    ping: "Ping",
    route: "Trace the route, with UDP and with ICMP",
    bulk: "Move 100 MB with iperf3",
    sessions: "The gateway's session table",
    counters: "The gateway's state and counters",
    address_ok: "no IPv4 address and no IPv4 route",
    dns64_ok: "{} holds {}",
    page_ok: "the server saw {}, an address of the gateway's pool",
    ping_ok: "{} of {} replies",
    route_ok: "{} hops, each once, in order",
    bulk_ok: "{} Mbit/s",
    sessions_ok: "the client's sessions are there",
    counters_ok: "read",
    failed: "FAILED: {}",
    look: "To look into it: `sampan lab up`, then `sampan lab exec client1 COMMAND`; logs are in /run/sampan-lab/lab",
    last_words: "Last words of the gateway: {}",
    removing: "Removing everything ...",
    all_ok: "All {} steps worked, in {} s.",
    some_failed: "{} of {} steps failed: {}",
    next: "Next: `sampan lab up` keeps this network running to play with; `sampan lab down` removes it.",
};

const VI: Text = Text {
    title: "Trình diễn Sampan: máy trạm thuần IPv6 sử dụng máy chủ chỉ có IPv4",
    intro: "Mọi thứ chạy trong các không gian mạng (network namespace) của máy này, với tên và địa chỉ giả định.\n\
            client1, client2 (chỉ IPv6) -- gw (Sampan) -- router (chỉ IPv4) -- server (chỉ IPv4)",
    building: "Đang dựng mạng và khởi động nginx, NSD, iperf3 và cổng chuyển đổi ...",
    built: "sẵn sàng sau {} giây",
    address: "Máy trạm chỉ có địa chỉ IPv6",
    dns64: "DNS64 tạo địa chỉ IPv6 cho tên miền chỉ có IPv4",
    page: "Máy trạm đọc trang web của máy chủ chỉ có IPv4, bằng tên miền",
    ping: "Ping",
    route: "Dò đường đi, bằng UDP và bằng ICMP",
    bulk: "Truyền 100 MB bằng iperf3",
    sessions: "Bảng phiên của cổng chuyển đổi",
    counters: "Trạng thái và bộ đếm của cổng chuyển đổi",
    address_ok: "không có địa chỉ IPv4 và không có tuyến IPv4",
    dns64_ok: "{} chứa {}",
    page_ok: "máy chủ nhìn thấy {}, một địa chỉ trong dải dùng chung của cổng chuyển đổi",
    ping_ok: "{} trên {} gói trả lời",
    route_ok: "{} chặng, mỗi chặng một lần, đúng thứ tự",
    bulk_ok: "{} Mbit/s",
    sessions_ok: "có các phiên của máy trạm",
    counters_ok: "đã đọc",
    failed: "LỖI: {}",
    look: "Để tìm nguyên nhân: `sampan lab up`, rồi `sampan lab exec client1 LỆNH`; nhật ký nằm ở /run/sampan-lab/lab",
    last_words: "Dòng cuối trong nhật ký của cổng chuyển đổi: {}",
    removing: "Đang dọn dẹp ...",
    all_ok: "Cả {} bước đều thành công, trong {} giây.",
    some_failed: "{} trên {} bước bị lỗi: {}",
    next: "Tiếp theo: `sampan lab up` giữ mạng này chạy để thực hành; `sampan lab down` gỡ bỏ nó.",
};

impl Lang {
    /// The language of the person's environment: `LC_ALL`, else `LC_MESSAGES`, else `LANG`, as POSIX orders them.
    pub fn from_environment() -> Self {
        let set = ["LC_ALL", "LC_MESSAGES", "LANG"]
            .into_iter()
            .filter_map(|name| env::var(name).ok())
            .find(|value| !value.is_empty());
        if set.is_some_and(|value| value.starts_with("vi")) { Self::Vi } else { Self::En }
    }

    /// Its messages.
    pub fn text(self) -> &'static Text {
        match self {
            Self::En => &EN,
            Self::Vi => &VI,
        }
    }
}

/// Puts values into a message.
pub fn fill(message: &str, values: &[&str]) -> String {
    let mut values = values.iter();
    let mut parts = message.split("{}");
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(values.next().unwrap_or(&"?"));
        out.push_str(part);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_languages_have_the_same_values_in_the_same_messages() {
        let shape = |text: &Text| {
            // Debug output is `field: "message"`; the messages differ, the fields and their places do not.
            format!("{text:#?}")
                .lines()
                .filter_map(|line| line.split_once(": \""))
                .map(|(field, message)| (field.trim().to_owned(), message.matches("{}").count()))
                .collect::<Vec<_>>()
        };
        assert!(shape(&EN).len() > 20);
        assert_eq!(shape(&EN), shape(&VI));
    }

    #[test]
    fn values_are_filled_in_order() {
        assert_eq!(fill("{} holds {}.", &["a", "b"]), "a holds b.");
        assert_eq!(fill("{} holds {}.", &["a"]), "a holds ?.");
        assert_eq!(fill("nothing", &["a"]), "nothing");
    }
}
