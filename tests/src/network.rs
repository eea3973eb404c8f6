//! Hosts on one machine: network namespaces, joined to this process's own by a bridge, and what can be wrong with
//! the ways between them.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The interface that each host has besides its loopback.
const INTERFACE: &str = "eth0";
/// How many networks there may be at a time on one machine. Each has a part of 198.18.0.0/15, which is for tests
/// (RFC 2544) and routed nowhere.
const NETWORKS: usize = 250;

/// What is wrong with the ways to and from a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Nothing reaches it, and nothing of it reaches anybody.
    Cut,
    /// The other hosts and it don't reach each other; whoever is on none of them reaches all.
    Partition,
    /// Nothing reaches it.
    Deaf,
    /// Nothing of it reaches anybody.
    Mute,
    /// One packet in five is lost, each way.
    Loss,
    /// What it sends is late.
    Delay,
}

impl Trouble {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Cut,
        Self::Partition,
        Self::Deaf,
        Self::Mute,
        Self::Loss,
        Self::Delay,
    ];
}

/// Hosts with a bridge between them; removed on drop, or when this process ends in any other way.
#[derive(Debug)]
pub struct Network {
    number: usize,
    hosts: usize,
    /// How `tc` delays.
    delay: &'static [&'static str],
    /// Removes everything once its input is closed.
    remover: Child,
}

/// 200 ms more or less, where the kernel can.
const NETEM: &[&str] = &["netem", "delay", "200ms", "50ms"];
/// Else a narrow way: what is sent waits for its turn, up to 400 ms, and what would wait longer is lost.
const NARROW: &[&str] = &["tbf", "rate", "256kbit", "burst", "4kb", "latency", "400ms"];

impl Network {
    /// Makes so many hosts.
    ///
    /// # Errors
    /// That takes root, `ip`, `tc` and `nft`; says what is not there.
    pub fn make(hosts: usize) -> Result<Self, String> {
        for (program, package) in [
            ("nft", "nftables"),
            ("tc", "iproute2"),
            ("nsenter", "util-linux"),
        ] {
            run(program, &["--version"], "")
                .or_else(|_| run(program, &["-V"], ""))
                .map_err(|_| {
                    format!("there is no {program} (on Debian, install the package {package})")
                })?;
        }
        // The name is taken at once or not at all.
        let number = (0..NETWORKS)
            .find(|number| ip(&["link", "add", &bridge(*number), "type", "bridge"]).is_ok())
            .ok_or("no bridge can be made, which takes root and iproute2")?;
        // The links first: with the namespace alone they would go some time later.
        let removals = (0..hosts).map(|host| {
            let (outside, namespace) = (outside(number, host), namespace(number, host));
            format!("ip link del {outside}; ip netns del {namespace};")
        });
        let removals: String = removals.collect();
        let remover = Command::new("/bin/sh")
            .args([
                "-c",
                &format!("read -r _; {removals} ip link del {}", bridge(number)),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("/bin/sh can't be started: {error}"))?;
        let mut network = Self {
            number,
            hosts,
            delay: NETEM,
            remover,
        };
        let bridge = bridge(number);
        let own = format!("198.18.{number}.254/24");
        ip(&["addr", "add", &own, "dev", &bridge])?;
        ip(&["link", "set", &bridge, "up"])?;
        for host in 0..hosts {
            let (namespace, outside) = (namespace(number, host), outside(number, host));
            let address = format!("{}/24", network.address(host));
            ip(&["netns", "add", &namespace])?;
            ip(&[
                "link", "add", &outside, "type", "veth", "peer", "name", INTERFACE, "netns",
                &namespace,
            ])?;
            ip(&["link", "set", &outside, "master", &bridge, "up"])?;
            ip(&["-n", &namespace, "addr", "add", &address, "dev", INTERFACE])?;
            ip(&["-n", &namespace, "link", "set", INTERFACE, "up"])?;
            ip(&["-n", &namespace, "link", "set", "lo", "up"])?;
        }
        if network.set_delay(0).is_err() {
            network.delay = NARROW;
            network.set_delay(0)?;
        }
        network.set(0, None)?;
        Ok(network)
    }

    /// A host's IP address.
    #[must_use]
    pub fn address(&self, host: usize) -> String {
        format!("198.18.{}.{}", self.number, host + 1)
    }

    /// Whether delays are true ones, by the kernel's netem, and not a narrow way's.
    #[must_use]
    pub fn has_netem(&self) -> bool {
        self.delay == NETEM
    }

    /// What to start instead of a program, so that it runs on a host.
    #[must_use]
    pub fn on(
        &self,
        host: usize,
        program: PathBuf,
        arguments: Vec<OsString>,
    ) -> (PathBuf, Vec<OsString>) {
        let namespace = format!("--net=/run/netns/{}", namespace(self.number, host));
        let mut all = vec![namespace.into(), program.into()];
        all.extend(arguments);
        ("nsenter".into(), all)
    }

    /// Makes the trouble that a host has this one, or none.
    ///
    /// # Errors
    /// What `nft` or `tc` says.
    pub fn set(&self, host: usize, trouble: Option<Trouble>) -> Result<(), String> {
        let others: Vec<String> = (0..self.hosts)
            .filter(|it| *it != host)
            .map(|it| self.address(it))
            .collect();
        let others = others.join(", ");
        let all = format!("\"{INTERFACE}\"");
        let (hears, says) = match trouble {
            None | Some(Trouble::Delay) => (String::new(), String::new()),
            Some(Trouble::Cut) => (format!("iifname {all} drop"), format!("oifname {all} drop")),
            Some(Trouble::Partition) => (
                format!("ip saddr {{ {others} }} drop"),
                format!("ip daddr {{ {others} }} drop"),
            ),
            Some(Trouble::Deaf) => (format!("iifname {all} drop"), String::new()),
            Some(Trouble::Mute) => (String::new(), format!("oifname {all} drop")),
            Some(Trouble::Loss) => (
                format!("iifname {all} numgen random mod 5 < 1 drop"),
                format!("oifname {all} numgen random mod 5 < 1 drop"),
            ),
        };
        let rules = format!(
            "table inet trouble {{}}\ndelete table inet trouble\ntable inet trouble {{\n\
             chain hears {{ type filter hook input priority 0; {hears}\n}}\n\
             chain says {{ type filter hook output priority 0; {says}\n}}\n}}\n"
        );
        let namespace = namespace(self.number, host);
        run(
            "ip",
            &["netns", "exec", &namespace, "nft", "-f", "-"],
            &rules,
        )?;
        match trouble {
            Some(Trouble::Delay) => self.set_delay(host),
            _ => {
                // There may be none.
                let _ = self.tc(host, &["qdisc", "del", "dev", INTERFACE, "root"]);
                Ok(())
            }
        }
    }

    fn set_delay(&self, host: usize) -> Result<(), String> {
        let replace = ["qdisc", "replace", "dev", INTERFACE, "root"];
        self.tc(host, &[&replace, self.delay].concat())
    }

    fn tc(&self, host: usize, arguments: &[&str]) -> Result<(), String> {
        let namespace = namespace(self.number, host);
        run("tc", &[&["-n", namespace.as_str()], arguments].concat(), "")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}

fn bridge(number: usize) -> String {
    format!("hansard{number}")
}

/// The end of a host's link that is on the bridge.
fn outside(number: usize, host: usize) -> String {
    format!("hansard{number}h{host}")
}

fn namespace(number: usize, host: usize) -> String {
    format!("hansard{number}-{host}")
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run("ip", arguments, "")
}

/// Runs a program to its end.
fn run(program: &str, arguments: &[&str], input: &str) -> Result<(), String> {
    let what = format!("{program} {}", arguments.join(" "));
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("{what}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Should it not read, its status says so.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child
        .wait_with_output()
        .map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {}", said.trim()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use xtask::process::{Supervised, wait_for};

    use super::*;

    /// A network of two, and a server of HTTP on its first host.
    fn with_server() -> Option<(Network, Supervised, tempfile::TempDir)> {
        let network = match Network::make(2) {
            Ok(network) => network,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let directory = tempfile::tempdir().unwrap();
        let arguments = ["-m", "http.server", "8000"].map(OsString::from).to_vec();
        let (program, arguments) = network.on(0, "python3".into(), arguments);
        let mut command = Command::new(program);
        command.args(arguments).current_dir(directory.path());
        let server = Supervised::start(command, &directory.path().join("output")).unwrap();
        Some((network, server, directory))
    }

    fn from_outside(network: &Network) -> bool {
        let address = format!("{}:8000", network.address(0)).parse().unwrap();
        TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok()
    }

    fn from_the_other_host(network: &Network) -> bool {
        let script = format!(
            "import socket; socket.create_connection(({:?}, 8000), 0.3)",
            network.address(0)
        );
        let arguments = vec!["-c".into(), script.into()];
        let (program, arguments) = network.on(1, "python3".into(), arguments);
        let output = Command::new(program).args(arguments).output().unwrap();
        output.status.success()
    }

    #[test]
    fn ways_are_cut_and_come_back() {
        let Some((network, _server, _directory)) = with_server() else {
            return;
        };
        let fair = || {
            wait_for(Duration::from_secs(20), || {
                from_outside(&network).then_some(())
            })
        };
        assert!(fair().is_some());
        assert!(from_the_other_host(&network));
        for (trouble, outside) in [
            (Trouble::Cut, false),
            (Trouble::Deaf, false),
            (Trouble::Mute, false),
            (Trouble::Partition, true),
        ] {
            network.set(0, Some(trouble)).unwrap();
            assert_eq!(from_outside(&network), outside, "{trouble:?}");
            assert!(!from_the_other_host(&network), "{trouble:?}");
            network.set(0, None).unwrap();
            assert!(fair().is_some(), "{trouble:?}");
            assert!(from_the_other_host(&network), "{trouble:?}");
        }
        for trouble in [Trouble::Loss, Trouble::Delay] {
            network.set(0, Some(trouble)).unwrap();
        }
    }

    #[test]
    fn nothing_is_left_of_a_network() {
        let Ok(network) = Network::make(1) else {
            return;
        };
        let namespace = PathBuf::from("/run/netns").join(namespace(network.number, 0));
        assert!(namespace.exists());
        drop(network);
        assert!(!namespace.exists());
        // The next one takes the same names.
        drop(Network::make(1).unwrap());
    }
}
