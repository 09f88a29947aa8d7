//! What the drop counters mean, in Vietnamese. The English text comes with the counters.

use crate::text::Lang;

/// The meaning of the counter `name`, if it is known in this language.
pub fn meaning(name: &str, lang: Lang) -> Option<&'static str> {
    match lang {
        Lang::En => None,
        Lang::Vi => VIETNAMESE.iter().find(|(known, _)| *known == name).map(|(_, text)| *text),
    }
}

const VIETNAMESE: &[(&str, &str)] = &[
    ("truncated", "ngắn hơn phần đầu của chính nó"),
    ("bad_version", "không phải IPv4 cũng không phải IPv6"),
    ("bad_length", "trường độ dài mâu thuẫn với gói tin hoặc với trường khác"),
    ("bad_ipv4_checksum", "tổng kiểm tra phần đầu IPv4 sai"),
    ("bad_icmp_checksum", "tổng kiểm tra của thông báo lỗi ICMP sai"),
    ("bad_offload", "dữ liệu offload của thiết bị mâu thuẫn với gói tin"),
    ("oversize", "bản chuyển dịch sẽ dài hơn 65535 byte"),
    ("extension_chain", "phần đầu mở rộng IPv6 quá nhiều, quá dài hoặc sai chỗ"),
    ("routing_header", "phần đầu định tuyến IPv6 còn chặng chưa đi (RFC 7915 5.1)"),
    ("source_route", "định tuyến nguồn IPv4 chưa dùng hết (RFC 7915 4.1)"),
    ("fragment", "một phân mảnh; chưa hỗ trợ ghép"),
    ("protocol_refused", "IGMP, ICMP của họ địa chỉ kia hoặc phần đầu mở rộng IPv6 làm số giao thức"),
    ("unknown_protocol", "không phải TCP, UDP hay ICMP (RFC 6146 3.4)"),
    ("icmp_type", "thông điệp ICMP không có bản chuyển dịch (RFC 7915 4.2, 5.2)"),
    ("icmp_quote", "lỗi ICMP có gói trích dẫn không đọc được hoặc lại là một lỗi ICMP"),
    ("icmp_pointer", "lỗi tham số có con trỏ không có chỗ tương ứng"),
    ("udp_zero_checksum", "UDP trên IPv6 không có tổng kiểm tra (RFC 8200 8.1)"),
    (
        "udp_no_checksum",
        "UDP trên IPv4 không có tổng kiểm tra, bị phân mảnh hoặc không được nhận (RFC 7915 4.5)",
    ),
    ("illegal_source", "địa chỉ nguồn mà không gói tin nào được mang"),
    ("illegal_destination", "đích multicast hoặc không dùng được"),
    ("source_in_pool6", "nguồn IPv6 nằm trong pool6 (RFC 6146 3.5)"),
    ("source_not_served", "nguồn IPv6 không thuộc đơn vị nào"),
    ("not_pool6", "đích IPv6 nằm ngoài pool6"),
    ("not_pool4", "đích IPv4 nằm ngoài pool4"),
    ("source_not_mapped", "địa chỉ nguồn không có địa chỉ IPv4 tương ứng (RFC 7915 6)"),
    ("non_global", "IPv4 nội bộ hoặc chuyên dụng dưới tiền tố well-known (RFC 6052 3.1)"),
    ("not_allowed", "đích IPv4 nội bộ hoặc chuyên dụng không có trong danh sách cho phép"),
    ("hop_limit", "hết hop limit hoặc TTL"),
    ("packet_too_big", "quá lớn cho chặng kế và không được cắt; đã báo cho bên gửi"),
    ("segment_too_big", "một đoạn của siêu gói quá lớn cho chặng kế"),
    ("no_bib", "không ai có ánh xạ cho địa chỉ và cổng pool này"),
    ("no_session", "không có phiên, và gói này không được tạo phiên"),
    ("filtered", "bị lọc theo địa chỉ hoặc theo chính sách"),
    ("syn_unanswered", "SYN từ IPv4 không được máy khách nào gọi lại kịp thời (RFC 6146 3.5.2.2)"),
    ("syn_met", "SYN từ IPv4 đang chờ đã gặp SYN của chính máy khách (RFC 5382 REQ-4)"),
    ("syn_repeated", "bản lặp lại của một SYN từ IPv4 đang chờ"),
    ("syn_store_full", "kho chứa SYN từ IPv4 đang chờ đã đầy"),
    ("not_in_flight", "lỗi ICMP trích một đoạn TCP không đang trên đường (RFC 5927 4.1)"),
    ("ports_exhausted", "thuê bao này không còn cổng trống"),
    ("quota_ports", "thuê bao, mạng hoặc đơn vị đã dùng hết số cổng được phép"),
    ("quota_sessions", "thuê bao, mạng hoặc đơn vị đã dùng hết số phiên được phép"),
    ("quota_unanswered", "quá nhiều phiên của thuê bao, mạng hoặc đơn vị đang chờ trả lời"),
    ("quota_rate", "quá nhiều phiên mới mỗi giây của thuê bao, mạng hoặc đơn vị"),
    ("table_full", "bảng phiên, BIB hoặc thuê bao đã đầy"),
    ("ring_full", "hàng đợi tới luồng xử lý sở hữu đã đầy"),
    ("device_write", "thiết bị từ chối gói tin"),
    ("shutdown", "còn trong hàng đợi khi cổng dừng"),
    ("fastpath_policed", "gói không có luật nhiều hơn mức một thuê bao được gửi lên không gian người dùng"),
    ("fastpath_failed", "nhân không viết lại được gói tin vì thiếu bộ nhớ"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_explained_once_and_an_unknown_one_keeps_its_english() {
        for (i, (name, text)) in VIETNAMESE.iter().enumerate() {
            assert!(
                !text.is_empty() && !VIETNAMESE.iter().skip(i + 1).any(|(other, _)| other == name),
                "{name}"
            );
        }
        assert_eq!(meaning("no_bib", Lang::Vi), Some("không ai có ánh xạ cho địa chỉ và cổng pool này"));
        assert_eq!(meaning("no_bib", Lang::En), None);
        assert_eq!(meaning("brand_new", Lang::Vi), None);
    }
}
