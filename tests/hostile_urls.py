"""URLs that no webhook may have, and names that resolve to where none may lead. `{port}` is where a canary listens."""

from __future__ import annotations

URLS = (
    # Loopback, and its spellings.
    "http://127.0.0.1:{port}/", "https://127.0.0.1:{port}/", "http://127.1:{port}/", "http://127.0.1:{port}/",
    "http://127.255.255.254:{port}/", "http://2130706433:{port}/", "http://017700000001:{port}/", "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/", "http://0x7f.1:{port}/", "http://0177.0.0.1:{port}/", "http://0177.1:{port}/",
    "http://127.0.0.0x1:{port}/", "http://0x7F.0X0.0.1:{port}/", "http://127.000.000.001:{port}/", "http://0127.0.0.1:{port}/",
    "http://00000177.00000000.00000000.00000001:{port}/", "http://4294967296:{port}/", "http://6425673729:{port}/",
    "http://127.0.0.1.:{port}/", "http://127.0.0.1..:{port}/", "http://0:{port}/", "http://0.0.0.0:{port}/", "http://0x0:{port}/",
    "http://127。0。0。1:{port}/", "http://①②⑦.⓪.⓪.①:{port}/", "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11:{port}/",
    "http://localhost:{port}/", "http://LOCALHOST:{port}/", "http://localhost.:{port}/", "http://ⓛocalhost:{port}/",
    "http://a.localhost:{port}/", "http://localhost.localdomain:{port}/", "http://ip6-localhost:{port}/",
    # IPv6: loopback, unspecified, and IPv4 in its covers.
    "http://[::1]:{port}/", "http://[0:0:0:0:0:0:0:1]:{port}/", "http://[0000::0001]:{port}/", "http://[::]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/", "http://[::ffff:7f00:1]:{port}/", "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://[::127.0.0.1]:{port}/", "http://[::ffff:0:127.0.0.1]:{port}/", "http://[64:ff9b::127.0.0.1]:{port}/",
    "http://[64:ff9b::a9fe:a9fe]:{port}/", "http://[64:ff9b:1::7f00:1]:{port}/", "http://[2002:7f00:1::]:{port}/",
    "http://[2002:a9fe:a9fe::1]:{port}/", "http://[2001:0:7f00:1::80ff:fffe]:{port}/", "http://[fe80::1]:{port}/",
    "http://[fe80::1%25lo]:{port}/", "http://[::1%25lo]:{port}/", "http://[fc00::1]:{port}/", "http://[fd00:ec2::254]:{port}/",
    "http://[ff02::1]:{port}/", "http://[2001:db8::1]:{port}/", "http://[100::1]:{port}/", "http://[fec0::1]:{port}/",
    "http://[::1:{port}/", "http://::1:{port}/", "http://[v1.::1]:{port}/", "http://[127.0.0.1]:{port}/",
    # Private, shared, link-local, metadata, multicast, reserved.
    "http://10.0.0.1:{port}/", "http://172.16.0.1:{port}/", "http://172.31.255.255:{port}/", "http://192.168.0.1:{port}/",
    "http://100.64.0.1:{port}/", "http://169.254.169.254:{port}/latest/meta-data/", "http://169.254.170.2:{port}/",
    "http://0xa9fea9fe:{port}/", "http://2852039166:{port}/", "http://100.100.100.200:{port}/", "http://168.63.129.16:{port}/",
    "http://192.0.0.192:{port}/", "http://192.0.2.1:{port}/", "http://198.18.0.1:{port}/", "http://192.88.99.1:{port}/",
    "http://224.0.0.1:{port}/", "http://240.0.0.1:{port}/", "http://255.255.255.255:{port}/",
    "http://metadata.google.internal:{port}/", "http://kubernetes.default.svc:{port}/", "http://kubernetes:{port}/",
    "http://taskflow-api.taskflow.svc.cluster.local:{port}/", "http://redis.lan:{port}/",
    # Names of the Internet that lead inside; see NAMES.
    "http://loopback.example.com:{port}/", "http://mapped.example.com:{port}/", "http://inner.example.com:{port}/",
    "http://metadata.example.com:{port}/", "http://mixed.example.com:{port}/", "http://six.example.com:{port}/",
    "http://zone.example.com:{port}/", "http://nothing.example.com:{port}/", "http://xn--ls8h.example.com:{port}/",
    # Who is the host?
    "http://user@127.0.0.1:{port}/", "http://user:word@hooks.example.com:{port}/", "http://hooks.example.com@127.0.0.1:{port}/",
    "http://@127.0.0.1:{port}/", "http://hooks.example.com:80@127.0.0.1:{port}/", "http://127.0.0.1:{port}#@hooks.example.com/",
    "http://127.0.0.1:{port}?@hooks.example.com/", "http://hooks.example.com\\@127.0.0.1:{port}/",
    "http://hooks.example.com\\.127.0.0.1:{port}/", "http:\\\\127.0.0.1:{port}\\", "http:127.0.0.1:{port}/", "http:///127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/", "//127.0.0.1:{port}/", "127.0.0.1:{port}", "", "http://", "http://:{port}/", "https://[]/",
    "http://127.0.0.1%2f:{port}/", "http://%31%32%37.0.0.1:{port}/", "http://127.0.0.1%00.hooks.example.com:{port}/",
    "http://127.0.0.1\t:{port}/", "http://127.0.0.1\n:{port}/", "http://127.0.0.1\r\nHost: x:{port}/", " http://127.0.0.1:{port}/",
    "http://127.0.0.1:{port}/\x00", "http://loca\u00adlhost:{port}/", "http://hooks_.example.com:{port}/",
    "http://-hooks.example.com:{port}/", "http://hooks..example.com:{port}/", "http://.example.com:{port}/",
    "http://hooks.example.com.:{port}/", "http://" + "a." * 130 + "com:{port}/", "http://" + "a" * 64 + ".com:{port}/",
    "http://例え.テスト:{port}/", "http://hooks.example.com:{port}/" + "a" * 2048,
    # Other schemes and ports.
    "ftp://hooks.example.com:{port}/", "file:///etc/passwd", "gopher://127.0.0.1:{port}/_x", "dict://127.0.0.1:{port}/",
    "ws://127.0.0.1:{port}/", "unix:///var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/", "jar:http://127.0.0.1:{port}/!/",
    "data:text/plain,x", "javascript:alert(1)", "ldap://127.0.0.1:{port}/", "HTTP://LOCALHOST:{port}/", "hxxp://127.0.0.1:{port}/",
    "http://hooks.example.com:22/", "http://hooks.example.com:6379/", "http://hooks.example.com:0/", "http://hooks.example.com:-1/",
    "http://hooks.example.com:65536/", "http://hooks.example.com:99999999/", "http://hooks.example.com:8e1/", "http://hooks.example.com:/",
    "http://hooks.example.com: {port}/", "http://hooks.example.com:{port}:{port}/", "http://hooks.example.com:{port}0/",
)  # fmt: skip

NAMES = {
    "hooks.example.com": ["93.184.215.14"],
    "loopback.example.com": ["127.0.0.1"],
    "mapped.example.com": ["::ffff:127.0.0.1"],
    "inner.example.com": ["10.0.0.1"],
    "metadata.example.com": ["169.254.169.254"],
    "mixed.example.com": ["93.184.215.14", "127.0.0.1"],
    "six.example.com": ["::1"],
    "zone.example.com": ["fe80::1%lo"],
    "nothing.example.com": [],
    "xn--ls8h.example.com": ["127.0.0.2"],
}
"""All else is asked of the system."""
