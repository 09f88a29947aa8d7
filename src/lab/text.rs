//! What the demonstration says, in English and Vietnamese.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::texts;

texts! {
    /// One message of the demonstration.
    pub enum Say {
        Title
            en "Sampan demonstration: an IPv6-only client uses an IPv4-only server"
            vi "Trình diễn Sampan: máy trạm thuần IPv6 sử dụng máy chủ chỉ có IPv4";
        Intro
            en "Everything runs in network namespaces of this machine, with fictitious names and addresses."
            vi "Mọi thứ chạy trong các không gian mạng (network namespace) của máy này, với tên và địa chỉ giả định.";
        Picture
            en "client1, client2 (IPv6 only) -- gw (Sampan) -- router (IPv4 only) -- server (IPv4 only)"
            vi "client1, client2 (chỉ IPv6) -- gw (Sampan) -- router (chỉ IPv4) -- server (chỉ IPv4)";
        Building
            en "Building the network and starting nginx, NSD, iperf3 and the gateway ..."
            vi "Đang dựng mạng và khởi động nginx, NSD, iperf3 và cổng chuyển đổi ...";
        Built { seconds: String }
            en "ready after {seconds} s"
            vi "sẵn sàng sau {seconds} giây";
        Address
            en "The client has IPv6 addresses only"
            vi "Máy trạm chỉ có địa chỉ IPv6";
        AddressOk
            en "no IPv4 address and no IPv4 route"
            vi "không có địa chỉ IPv4 và không có tuyến IPv4";
        Dns64
            en "DNS64 gives the IPv4-only name an IPv6 address"
            vi "DNS64 tạo địa chỉ IPv6 cho tên miền chỉ có IPv4";
        Dns64Ok { v6: Ipv6Addr, v4: Ipv4Addr }
            en "{v6} holds {v4}"
            vi "{v6} chứa {v4}";
        Page
            en "The client reads a page of the IPv4-only web server, by name"
            vi "Máy trạm đọc trang web của máy chủ chỉ có IPv4, bằng tên miền";
        PageOk { address: Ipv4Addr }
            en "the server saw {address}, an address of the gateway's pool"
            vi "máy chủ nhìn thấy {address}, một địa chỉ trong dải dùng chung của cổng chuyển đổi";
        Ping
            en "Ping"
            vi "Ping";
        PingOk { replies: usize, count: usize }
            en "{replies} of {count} replies"
            vi "{replies} trên {count} gói trả lời";
        Route
            en "Trace the route, with UDP and with ICMP"
            vi "Dò đường đi, bằng UDP và bằng ICMP";
        RouteOk { hops: usize }
            en "{hops} hops, each once, in order"
            vi "{hops} chặng, mỗi chặng một lần, đúng thứ tự";
        Bulk
            en "Move 100 MB with iperf3"
            vi "Truyền 100 MB bằng iperf3";
        BulkOk { rate: String }
            en "at {rate} Mbit/s"
            vi "tốc độ {rate} Mbit/s";
        Sessions
            en "The gateway's session table"
            vi "Bảng phiên của cổng chuyển đổi";
        SessionsOk
            en "the client's sessions are there"
            vi "có các phiên của máy trạm";
        Counters
            en "The gateway's state and counters"
            vi "Trạng thái và bộ đếm của cổng chuyển đổi";
        CountersOk
            en "the gateway answers"
            vi "cổng chuyển đổi trả lời";
        Failed { why: String }
            en "FAILED: {why}"
            vi "LỖI: {why}";
        Look
            en "To look into it: `sampan lab up`, then `sampan lab exec client1 COMMAND`; logs are in /run/sampan-lab/lab"
            vi "Để tìm nguyên nhân: `sampan lab up`, rồi `sampan lab exec client1 LỆNH`; nhật ký nằm ở /run/sampan-lab/lab";
        LastWords { words: String }
            en "Last words of the gateway: {words}"
            vi "Dòng cuối trong nhật ký của cổng chuyển đổi: {words}";
        Removing
            en "Removing everything ..."
            vi "Đang dọn dẹp ...";
        AllOk { steps: usize, seconds: String }
            en "All {steps} steps worked, in {seconds} s."
            vi "Cả {steps} bước đều thành công, trong {seconds} giây.";
        SomeFailed { failed: usize, steps: usize, names: String }
            en "{failed} of {steps} steps failed: {names}"
            vi "{failed} trên {steps} bước bị lỗi: {names}";
        Next
            en "Next: `sampan lab up` keeps this network running to play with; `sampan lab down` removes it."
            vi "Tiếp theo: `sampan lab up` giữ mạng này chạy để thực hành; `sampan lab down` gỡ bỏ nó.";
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn both_languages_say_everything() {
        crate::text::check_catalogue(super::Say::CATALOGUE);
    }
}
