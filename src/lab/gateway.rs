//! The gateway's software: Sampan, or what it is compared with.

use std::os::unix::net::UnixStream;
use std::path::Path;

use super::error::LabError;
use super::options::{Options, PoolMode, Translator};
use super::plan::{DNS_UPSTREAM, GW_OUTSIDE, INSIDE6, Plan, TUN};
use super::services::{START_PATIENCE, answers, make_dir, not_ready, path, wait_listening, write};
use super::tool::{Tool, until};
use super::{Host, Lab};

/// Name of the gateway's log file without `.log`, and of its service.
pub const GATEWAY: &str = "gateway";
/// Where the gateway's maps are pinned, below the directory of the laboratory.
pub(super) const PINS: &str = "bpf";

/// Starts the gateway's software and waits until it works.
pub(super) fn start(lab: &mut Lab) -> Result<(), LabError> {
    let gw = lab.host("gw")?.clone();
    match lab.options().translator {
        Translator::Sampan => start_sampan(lab, &gw),
        Translator::Tayga => start_tayga(lab, &gw),
        Translator::Nat44 => {
            let rules = format!(
                "table ip lab {{ chain post {{ type nat hook postrouting priority 100; \
                 oifname \"{GW_OUTSIDE}\" masquerade; }}; }}"
            );
            gw.tool("nft").args([rules]).run()?.check().map(drop)
        }
        Translator::Forward | Translator::Nothing => Ok(()),
    }
}

/// Programs that the gateway's software needs.
pub(super) fn tools(translator: Translator) -> &'static [&'static str] {
    match translator {
        Translator::Tayga => &["tayga", "unbound"],
        Translator::Nat44 => &["nft"],
        Translator::Sampan | Translator::Forward | Translator::Nothing => &[],
    }
}

/// The configuration file of Sampan in this laboratory.
pub fn config(options: &Options, plan: &Plan, dir: &Path) -> String {
    let pref64 = options.pref64;
    let gateway6 = plan.gateway6;
    let pool4 = &plan.pool4;
    let mode = match options.pool_mode {
        PoolMode::Routed => "mode = \"routed\"".into(),
        PoolMode::OnLink => format!("mode = \"onlink\"\ninterface = \"{GW_OUTSIDE}\""),
    };
    let workers = options.workers.map(|n| format!("workers = {n}\n")).unwrap_or_default();
    let mut text = format!(
        "[nat64]\npool6 = [\"{pref64}\"]\nsubscriber = 128\nblock-size = 512\nkey-file = \"{key}\"\n{workers}{extra}\n\
         [[nat64.pool4]]\nprefix = \"{pool4}\"\n{mode}\n\n",
        key = path(dir, "key"),
        extra = options.nat64_extra,
    );
    if options.allow_lab_nets {
        for (prefix, name) in [
            ("203.0.113.0/24", "lab servers"),
            ("192.0.2.0/24", "lab routers and on-link pool"),
            ("198.51.100.0/24", "lab pool, for hairpinning"),
        ] {
            text.push_str(&format!("[[nat64.allow]]\nprefix = \"{prefix}\"\nname = \"{name}\"\n\n"));
        }
    }
    text.push_str(&format!(
        "[dns64]\nlisten = [\"[{gateway6}]:53\"]\nupstream = [\"{DNS_UPSTREAM}:53\"]\nallow = [\"{INSIDE6}\"]\n\n\
         [[unit]]\nname = \"Lab office\"\nprefixes = [\"{INSIDE6}\"]\n\n\
         [admin]\nsocket = \"{socket}\"\ndns64-socket = \"{dns64}\"\n\n[tun]\nname = \"{TUN}\"\n",
        socket = path(dir, "admin.sock"),
        dns64 = path(dir, "dns64.sock"),
    ));
    if let Some(lines) = &options.fast_path {
        text.push_str(&format!("\n[fastpath]\npins = \"{}\"\n{lines}", path(dir, PINS)));
    }
    text.push_str(&options.config_extra);
    text
}

fn start_sampan(lab: &mut Lab, gw: &Host) -> Result<(), LabError> {
    let dir = lab.dir().to_owned();
    let file = dir.join("sampan.toml");
    write(&file, config(lab.options(), lab.plan(), &dir))?;
    start_again(lab, gw)
}

/// Starts `sampan run` with the configuration that is there; also used after a test has stopped it.
pub(super) fn start_again(lab: &mut Lab, gw: &Host) -> Result<(), LabError> {
    let dir = lab.dir().to_owned();
    let program = lab.options().sampan.display().to_string();
    let run = Tool::new(program).args(["run", "--config", &path(&dir, "sampan.toml")]);
    lab.start_service(gw, GATEWAY, run)?;

    let socket = dir.join("admin.sock");
    let client = lab.host("client1")?.clone();
    let resolver = lab.plan().gateway6;
    let ready = until(START_PATIENCE, || {
        !lab.service_ended(GATEWAY)
            && UnixStream::connect(&socket).is_ok()
            && answers(&client, resolver.into())
            || lab.service_ended(GATEWAY)
    })?;
    if !ready || lab.service_ended(GATEWAY) {
        return Err(not_ready(GATEWAY, &dir));
    }
    Ok(())
}

fn start_tayga(lab: &mut Lab, gw: &Host) -> Result<(), LabError> {
    let dir = lab.dir().to_owned();
    let (pref64, pool4) = (lab.options().pref64, lab.plan().pool4.clone());
    let own = pool4.split('/').next().unwrap_or(&pool4).rsplit_once('.').map_or_else(
        || pool4.clone(),
        |(net, last)| format!("{net}.{}", last.parse::<u8>().unwrap_or(0).saturating_add(14)),
    );
    make_dir(&dir.join("tayga"))?;
    write(
        &dir.join("tayga.conf"),
        format!(
            "tun-device {TUN}\nipv4-addr {own}\nprefix {pref64}\ndynamic-pool {pool4}\ndata-dir {}\n",
            path(&dir, "tayga")
        ),
    )?;
    let conf = path(&dir, "tayga.conf");
    gw.tool("tayga").args(["-c", &conf, "--mktun"]).run()?.check()?;
    gw.tool("ip")
        .args(["-batch", "-"])
        .input(format!(
            "link set {TUN} up txqueuelen 2000\nroute add {pref64} dev {TUN}\nroute add {pool4} dev {TUN}\n"
        ))
        .run()?
        .check()?;
    lab.start_service(gw, GATEWAY, Tool::new("tayga").args(["-d", "-c", &conf]))?;

    let listen = lab.plan().gateway6;
    write(
        &dir.join("unbound.conf"),
        format!(
            "server:\n  interface: {listen}\n  access-control: {INSIDE6} allow\n  username: \"\"\n  chroot: \"\"\n  \
             directory: \"{at}\"\n  pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  \
             module-config: \"dns64 iterator\"\n  dns64-prefix: {pref64}\n  do-not-query-localhost: no\n\
             remote-control:\n  control-enable: no\nforward-zone:\n  name: \".\"\n  forward-addr: {DNS_UPSTREAM}\n",
            at = dir.display()
        ),
    )?;
    let conf = path(&dir, "unbound.conf");
    lab.start_service(gw, "unbound", Tool::new("unbound").args(["-d", "-c", &conf]))?;
    wait_listening(gw, &dir, "unbound", (listen, 53).into())
}
