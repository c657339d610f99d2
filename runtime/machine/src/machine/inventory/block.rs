//! Disks in monitors: `info block`, `info blockstats`, and QMP's commands of these names.

use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering;

use mimus_hw::ata::Tray;
use mimus_hw::ide::IdePlace;
use serde_json::{Value, json};

use super::{Attachment, Device, Drive, Inventory, Medium};
use mimus_host::block::IoStatus;
use mimus_host::config::{Limit, Limits, OnError, Zeroes};

/// As in the interface of `stat`.
const STAT_BLOCK: u64 = 512;

/// What QEMU calls the ways of caching.
fn cache_mode(medium: &Medium) -> &'static str {
    let cache = medium.disk.cache;
    match (cache.writethrough, cache.direct, cache.no_flush) {
        (_, _, true) => "writeback, ignore flushes",
        (true, true, _) => "writethrough, direct",
        (true, false, _) => "writethrough",
        (false, true, _) => "writeback, direct",
        (false, false, _) => "writeback",
    }
}

fn tray_of(device: &Device, tray: &mut dyn FnMut(IdePlace) -> Option<Tray>) -> Tray {
    let place = if let Attachment::Ide(place) = device.place { tray(place) } else { None };
    place.unwrap_or(Tray { open: false, locked: false })
}

impl Medium {
    fn file(&self) -> String {
        self.disk.file.display().to_string()
    }

    /// QMP's `ImageInfo`.
    fn image_json(&self) -> Value {
        let actual = std::fs::metadata(&self.disk.file).map_or(0, |data| data.blocks().saturating_mul(STAT_BLOCK));
        json!({
            "filename": self.file(),
            "format": self.format,
            "virtual-size": self.bytes,
            "actual-size": actual,
            "dirty-flag": false,
        })
    }

    /// QMP's `BlockDeviceInfo` of the node `name`.
    fn json(&self, name: &str) -> Value {
        let cache = self.disk.cache;
        let mut all = json!({
            "file": self.file(),
            "node-name": name,
            "ro": self.disk.read_only,
            "drv": self.format,
            "encrypted": false,
            "detect_zeroes": match self.disk.zeroes {
                Zeroes::AsTheyAre => "off",
                Zeroes::Written => "on",
                Zeroes::Unmapped => "unmap",
            },
            "backing_file_depth": 0,
            "write_threshold": 0,
            "cache": { "writeback": !cache.writethrough, "direct": cache.direct, "no-flush": cache.no_flush },
            "image": self.image_json(),
        });
        let limits = &self.disk.limits;
        for (name, limit) in named(limits) {
            all[name] = limit.average.into();
            if limit.burst != 0 {
                all[format!("{name}_max")] = limit.burst.into();
                all[format!("{name}_max_length")] = limit.seconds.into();
            }
        }
        if limits.request_bytes != 0 {
            all["iops_size"] = limits.request_bytes.into();
        }
        if !limits.group.is_empty() {
            all["group"] = limits.group.as_str().into();
        }
        all
    }
}

/// Limits by QMP's names.
fn named(limits: &Limits) -> impl Iterator<Item = (&'static str, Limit)> {
    let names = ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"];
    names.into_iter().zip(limits.bytes.into_iter().chain(limits.requests))
}

/// The limits of a disk as a line, if it has any.
fn limits_text(limits: &Limits) -> String {
    if named(limits).all(|(_, limit)| limit.average == 0) {
        return String::new();
    }
    let mut text = "    I/O throttling:  ".to_owned();
    for (name, limit) in named(limits) {
        let _ = write!(text, " {name}={}", limit.average);
    }
    for (name, limit) in named(limits).filter(|(_, limit)| limit.burst != 0) {
        let _ = write!(text, " {name}_max={}", limit.burst);
    }
    let _ = writeln!(text, " iops_size={} group={}", limits.request_bytes, limits.group);
    text
}

/// Whether an error can stop the machine.
fn stops(medium: &Medium) -> bool {
    let stops = |on_error| matches!(on_error, OnError::Stop | OnError::StopWithoutSpace);
    stops(medium.disk.on_error.0) || stops(medium.disk.on_error.1)
}

/// What the host's side of a drive's image is called.
pub(super) fn node_name(drive: &Drive) -> String {
    let named = drive.medium.as_ref().map(|medium| medium.disk.node.as_str()).filter(|name| !name.is_empty());
    named.map_or_else(|| format!("#{}", drive.name), str::to_owned)
}

/// What QMP calls a drive beside its node: nothing if `-blockdev` made it, which makes nodes alone.
fn backend_name(drive: &Drive) -> &str {
    if node_name(drive) == drive.name { "" } else { &drive.name }
}

impl Inventory {
    /// The path of what has the drive: in QEMU that is a device within the one that is on the PCI bus.
    fn drive_path(&self, device: &Device) -> String {
        let within = if matches!(device.place, Attachment::Pci(_)) { "/virtio-backend" } else { "" };
        self.path(device) + within
    }

    pub(super) fn block_text(&self, tray: &mut dyn FnMut(IdePlace) -> Option<Tray>) -> String {
        let mut out = String::new();
        for (device, drive) in self.drives() {
            if !out.is_empty() {
                out.push('\n');
            }
            let _ = match &drive.medium {
                None => writeln!(out, "{}: [not inserted]", drive.name),
                Some(medium) => {
                    let read_only = if medium.disk.read_only { ", read-only" } else { "" };
                    let (name, file, format) = (node_name(drive), medium.file(), medium.format);
                    writeln!(out, "{} ({name}): {file} ({format}{read_only})", drive.name)
                }
            };
            let _ = writeln!(out, "    Attached to:      {}", self.drive_path(device));
            if drive.removable {
                let Tray { open, locked } = tray_of(device, tray);
                let (locked, open) =
                    (if locked { "locked" } else { "not locked" }, if open { "open" } else { "closed" });
                let _ = writeln!(out, "    Removable device: {locked}, tray {open}");
            }
            let Some(medium) = &drive.medium else { continue };
            let _ = writeln!(out, "    Cache mode:       {}", cache_mode(medium));
            if medium.disk.snapshot {
                out.push_str("    Snapshot:         what is written is forgotten at the end\n");
            }
            if drive.counters.status() != IoStatus::Ok {
                let _ = writeln!(out, "    I/O status:       {}", drive.counters.status().name());
            }
            out.push_str(&limits_text(&medium.disk.limits));
        }
        out
    }

    pub(super) fn blockstats_text(&self) -> String {
        let mut out = String::new();
        for (_, drive) in self.drives() {
            let _ = write!(out, "{}:", drive.name);
            for (kind, requests) in drive.counters.iter() {
                let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
                let _ = write!(out, " {kind}_bytes={}", load(&requests.bytes));
                let _ = write!(out, " {kind}_operations={}", load(&requests.count));
                let _ = write!(out, " {kind}_total_time_ns={}", load(&requests.time));
                let _ = write!(out, " failed_{kind}_operations={}", load(&requests.failed));
            }
            out.push('\n');
        }
        out
    }

    pub(super) fn block_json(&self, tray: &mut dyn FnMut(IdePlace) -> Option<Tray>) -> Value {
        let one = |(device, drive): (&Device, &Drive)| {
            let Tray { open, locked } = tray_of(device, tray);
            let mut all = json!({
                "device": backend_name(drive),
                "qdev": self.drive_path(device),
                "type": "unknown",
                "removable": drive.removable,
                "locked": locked,
            });
            if drive.removable {
                all["tray_open"] = open.into();
            }
            if drive.medium.as_ref().is_none_or(stops) {
                all["io-status"] = drive.counters.status().name().into();
            }
            if let Some(medium) = &drive.medium {
                all["inserted"] = medium.json(&node_name(drive));
            }
            all
        };
        self.drives().map(one).collect()
    }

    pub(super) fn nodes_json(&self) -> Value {
        self.drives().filter_map(|(_, drive)| Some(drive.medium.as_ref()?.json(&node_name(drive)))).collect()
    }

    pub(super) fn blockstats_json(&self) -> Value {
        let one = |(device, drive): (&Device, &Drive)| {
            // What is counted of requests that were merged, that were wrong, and in intervals: there is none.
            let mut stats =
                json!({ "wr_highest_offset": 0, "account_invalid": true, "account_failed": true, "timed_stats": [] });
            for (kind, requests) in drive.counters.iter() {
                let mut set = |name: String, value: &std::sync::atomic::AtomicU64| {
                    stats[name] = value.load(Ordering::Relaxed).into();
                };
                if kind != "flush" {
                    set(format!("{kind}_bytes"), &requests.bytes);
                }
                set(format!("{kind}_operations"), &requests.count);
                set(format!("{kind}_total_time_ns"), &requests.time);
                set(format!("failed_{kind}_operations"), &requests.failed);
                stats[format!("invalid_{kind}_operations")] = 0.into();
                if kind != "flush" {
                    stats[format!("{kind}_merged")] = 0.into();
                }
            }
            json!({
                "device": backend_name(drive),
                "qdev": self.drive_path(device),
                "node-name": node_name(drive),
                "stats": stats,
            })
        };
        self.drives().map(one).collect()
    }
}
