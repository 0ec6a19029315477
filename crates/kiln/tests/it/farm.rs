//! `farm.internal`, with an echo as the farm.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use kiln_vm::{
    image::{Image, Store},
    machine::{Bounded, Exec, Guest, GuestSpec, Machine as _},
    namespace::Isolation,
    network::{Farm, Network},
    qemu::{QemuMachine, Templates},
};
use tokio::net::TcpStream;

use crate::harness::{IMAGE, Turn, images};

#[derive(Debug, Default)]
struct Echo {
    served: AtomicUsize,
}

#[async_trait]
impl Farm for Echo {
    async fn serve(&self, mut connection: TcpStream) {
        self.served.fetch_add(1, Ordering::Relaxed);
        let (mut from, mut to) = connection.split();
        // The guest may close it at any time.
        let _ = tokio::io::copy(&mut from, &mut to).await;
    }
}

fn machine() -> QemuMachine {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache/kiln");
    QemuMachine {
        helper: env!("CARGO_BIN_EXE_kiln").into(),
        isolation: Isolation::Namespaces,
        kvm: false,
        boot_deadline: Duration::from_mins(3),
        templates: Some(Templates::new(cache.join("templates"))),
        cgroups: None,
    }
}

async fn image(machine: &QemuMachine) -> Image {
    let store = Store::new(images());
    let dir = store.directory(IMAGE).expect("the image");
    let functions = machine.functions(&images(), &dir);
    let variables = functions.variables().await.expect("its variables");
    store.find(IMAGE, None, &variables).expect("the image")
}

/// Runs a command in the guest and gives its output.
async fn say(guest: &dyn Guest, command: &str) -> String {
    let mut said = Bounded::new(64 * 1024);
    let ran = guest.exec(Exec::new(command), &mut said).await;
    ran.expect("the guest answers");
    String::from_utf8_lossy(&said.bytes).into_owned()
}

/// Says a line to a port and prints what comes back.
fn talk(host: &str, port: u16) -> String {
    format!(
        "timeout 20 bash -c 'exec 3<>/dev/tcp/{host}/{port}; echo hello from {host} >&3; head -n 1 <&3' 2>&1 || echo nobody at {host}:{port}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_reaches_its_farm_by_name_and_by_address_and_nothing_beside_it() {
    let _turn = Turn::take();
    let dir = tempfile::tempdir().expect("a directory");
    let (machine, echo) = (machine(), Arc::new(Echo::default()));
    let spec = GuestSpec {
        image: image(&machine).await,
        memory_mib: None,
        cpus: 2,
        disk_mib: None,
        preparation: None,
        network: Network::Public { allow: Vec::new() },
        farm: Some(echo.clone()),
        dir: dir.path().to_owned(),
    };
    let guest = machine.start(&spec).await.expect("a guest");
    for host in ["farm.internal", "10.0.2.2"] {
        let said = say(&*guest, &talk(host, 80)).await;
        assert_eq!(said, format!("hello from {host}\n"));
    }
    assert_eq!(echo.served.load(Ordering::Relaxed), 2);
    for (host, port) in [("10.0.2.2", 81), ("10.0.2.3", 80), ("10.0.2.4", 80)] {
        let said = say(&*guest, &talk(host, port)).await;
        assert!(said.contains(&format!("nobody at {host}:{port}")), "{said}");
    }
    assert_eq!(echo.served.load(Ordering::Relaxed), 2);
    guest.stop().await;
}
