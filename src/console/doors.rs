//! The ways from one namespace's console into another's, for those who may use both.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::api::Access;
use crate::console::{House, Inner};
use crate::id::Namespace;

/// The consoles of one server's namespaces. Clones are handles to the same. Where there is one alone it knows of none.
#[derive(Clone, Default)]
pub struct Doors(Option<Arc<Hall>>);

struct Hall {
    access: Access,
    houses: Mutex<BTreeMap<Namespace, Weak<Inner>>>,
}

impl Doors {
    /// Between the namespaces of `access`.
    pub fn new(access: Access) -> Self {
        Self(Some(Arc::new(Hall { access, houses: Mutex::default() })))
    }

    pub(super) fn add(&self, house: &House) {
        if let Some(hall) = &self.0 {
            let mut houses = hall.houses.lock().unwrap_or_else(PoisonError::into_inner);
            houses.insert(house.namespace().clone(), Arc::downgrade(&house.0));
        }
    }

    /// The console that a token is for. Whether it opens it is found out there.
    pub(super) fn of_token(&self, token: &str) -> Option<House> {
        let hall = self.0.as_ref()?;
        hall.access.opened_by(token).iter().find_map(|namespace| hall.house(namespace))
    }

    /// The console of `namespace`, if it is there.
    pub(super) fn of(&self, namespace: &Namespace) -> Option<House> {
        self.0.as_ref()?.house(namespace)
    }

    /// Where the holder of the token with this hash may go; without one, whoever needs none.
    pub(super) fn open_to(&self, hash: Option<[u8; 32]>) -> Vec<Namespace> {
        match (&self.0, hash) {
            (Some(hall), Some(hash)) => hall.access.open_to(hash),
            (Some(hall), None) if hall.access.is_open() => hall.access.namespaces().to_vec(),
            _ => Vec::new(),
        }
    }
}

impl Hall {
    fn house(&self, namespace: &Namespace) -> Option<House> {
        let houses = self.houses.lock().unwrap_or_else(PoisonError::into_inner);
        houses.get(namespace)?.upgrade().map(House)
    }
}
