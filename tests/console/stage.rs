//! What tests in a browser and the pictures share: a house with thousands of sagas, and the table of all pages.

use std::path::PathBuf;

use amends::coordinator::CoordinatorOptions;
use amends::id::SagaId;

use crate::made::{self, Filled, ORDER};
use crate::support::http::{House, Served};

/// Sagas of the house, of which 300 are stuck in ten ways.
pub const SAGAS: usize = 10_000;

/// The pages, with names for pictures. **A new page is put in here**: then it is checked for accessibility and width in
/// light and dark, for its time and size, for hostile payloads, and pictured.
pub fn pages(filled: &Filled) -> Vec<(&'static str, String)> {
    let stuck = filled.stuck[1][0];
    let under_way = filled.before_pivot[0];
    vec![
        ("home", String::new()),
        ("sagas", "sagas".to_owned()),
        ("sagas-stuck", "sagas?state=STUCK&error=timeout".to_owned()),
        ("sagas-none", "sagas?key=nobody".to_owned()),
        ("saga-stuck", format!("sagas/{stuck}?sequence=1")),
        ("saga-unknown", format!("sagas/{}?history=full", filled.stuck[6][0])),
        ("saga-under-way", format!("sagas/{under_way}")),
        ("saga-json", format!("sagas/{}?history=json", filled.stuck[4][0])),
        ("action-retry", format!("sagas/{stuck}/retry")),
        ("action-skip", format!("sagas/{stuck}/skip")),
        ("action-compensate", format!("sagas/{under_way}/compensate")),
        ("action-pause", format!("sagas/{under_way}/pause")),
        ("action-cancel", format!("sagas/{under_way}/cancel")),
        ("action-abandon", format!("sagas/{stuck}/abandon")),
        ("action-migrate", format!("sagas/{under_way}/migrate")),
        ("definitions", "definitions".to_owned()),
        ("definition", "definitions/order/1?advice=1".to_owned()),
        ("participant", "participants/carrier".to_owned()),
        ("participant-pause", "participants/carrier/pause".to_owned()),
        ("bulk", "bulk".to_owned()),
        ("dead", "dead".to_owned()),
        ("webhooks", "webhooks".to_owned()),
        ("webhook-retry", format!("webhooks/{}/retry", filled.untold[0])),
        ("audit", "audit".to_owned()),
        ("audit-of-one", format!("audit?saga={stuck}")),
        ("login", "login".to_owned()),
        ("missing", "sagas/nobody".to_owned()),
    ]
}

/// The second version of [`ORDER`]: it waits longer for the carrier.
pub fn second_version() -> String {
    let ship = "{ name: ship, participant: carrier, action: ship,";
    ORDER.replace("version: 1", "version: 2").replace(ship, &format!("{ship} timeout: 30m,"))
}

/// The house, served.
pub struct Stage {
    pub house: House,
    pub served: Served,
    pub filled: Filled,
}

impl Stage {
    /// A house with `count` sagas on SQLite, in `folder`, and a version that they can be moved to.
    pub async fn new(count: usize, folder: PathBuf) -> Self {
        let stage = Self::with(count, folder, CoordinatorOptions::default()).await;
        stage.house.coordinator.register(&second_version(), "ada").await.expect("registered");
        stage
    }

    /// The same where inputs may be edited, without another version.
    pub async fn editable(count: usize, folder: PathBuf) -> Self {
        Self::with(count, folder, CoordinatorOptions { allow_edit: true, ..CoordinatorOptions::default() }).await
    }

    async fn with(count: usize, folder: PathBuf, options: CoordinatorOptions) -> Self {
        std::fs::create_dir_all(&folder).expect("the folder is made");
        let url = format!("sqlite://{}", folder.join("amends.db").display());
        let store = amends::store::open(&url).await.expect("the store opens");
        store.migrate().await.expect("the schema is made");
        let house = House::launched(store, options).await;
        house.coordinator.register(ORDER, "test").await.expect("registered");
        let mut filled = made::fill(&*house.store, &made::definition(ORDER), count).await;
        filled.untold = made::untold(&*house.store, &[0, 1, 2].map(|way| filled.stuck[way][0])).await;
        let (_, served) = house.serve().await;
        Self { house, served, filled }
    }

    /// The address of a page.
    pub fn url(&self, page: &str) -> String {
        format!("{}/console/{page}", self.served.url)
    }

    /// A stuck saga that no other test has: each names another one.
    pub fn own(&self, way: usize, number: usize) -> SagaId {
        self.filled.stuck[way][number]
    }
}
