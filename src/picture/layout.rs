//! A layered layout from top to bottom: each box lies below all that it waits for, with few crossings.
//!
//! Sugiyama's four phases, small: layers by longest path, long edges through the layers between (one bundle per box
//! that they leave), orders by barycentre and neighbour swaps, and positions by least squares. Written here because a
//! picture wants to know where long edges bend, must come out the same each time, and must bear any definition.

use std::collections::BTreeMap;

/// Rounds of ordering; more change nothing in practice.
const SWEEPS: usize = 12;
/// Rounds of placing.
const ROUNDS: usize = 16;
/// Above this many places in all layers, long edges are drawn straight and orders are left as they are.
const MAX_ITEMS: usize = 4_000;
/// Up to so many places, neighbours are tried in the other order too.
const MAX_SWAPPED: usize = 600;
/// The room a long edge takes in a layer that it passes.
const LANE: f64 = 44.0;

/// A box to be placed, in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub width: i32,
    pub height: i32,
}

/// Where a box stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Its middle.
    pub x: i32,
    /// Its upper edge.
    pub top: i32,
    /// Its lower edge.
    pub bottom: i32,
}

/// A way from one box to another, through the places of the layers between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub from: usize,
    pub to: usize,
    pub via: Vec<Place>,
}

/// Everything in its place; the left and upper edges are 0.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub places: Vec<Place>,
    pub routes: Vec<Route>,
    pub width: i32,
    pub height: i32,
}

/// Space between boxes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gaps {
    pub across: i32,
    pub down: i32,
}

/// Places boxes. `edges` are acyclic pairs of places in `sizes`; others are left out.
pub(super) fn lay_out(sizes: &[Size], edges: &[(usize, usize)], gaps: Gaps) -> Layout {
    let edges: Vec<(usize, usize)> =
        edges.iter().copied().filter(|&(from, to)| from < sizes.len() && to < sizes.len()).collect();
    let mut web = Web::new(sizes, &edges);
    web.order();
    let xs = web.across(f64::from(gaps.across));
    let (tops, heights, height) = rows(sizes, &web, gaps.down);
    let left = web.items.iter().zip(&xs).map(|(item, x)| x - item.width / 2.0).fold(f64::INFINITY, f64::min);
    let right = web.items.iter().zip(&xs).map(|(item, x)| x + item.width / 2.0).fold(left, f64::max);
    let x_of = |item: usize| xs.get(item).map_or(0, |x| (x - left).round() as i32);
    let top_of = |layer: usize| tops.get(layer).copied().unwrap_or(0);
    let places = sizes.iter().enumerate().map(|(at, size)| {
        let top = top_of(web.items.get(at).map_or(0, |item| item.layer));
        Place { x: x_of(at), top, bottom: top + size.height }
    });
    let passed = |item: usize| {
        let layer = web.items.get(item).map_or(0, |item| item.layer);
        let top = top_of(layer);
        Place { x: x_of(item), top, bottom: top + heights.get(layer).copied().unwrap_or(0) }
    };
    let routes = edges.iter().map(|&(from, to)| Route {
        from,
        to,
        via: web.between(from, to).into_iter().map(passed).collect(),
    });
    Layout { places: places.collect(), routes: routes.collect(), width: (right - left).ceil().max(0.0) as i32, height }
}

/// Each layer's upper edge and height, and the height of all.
fn rows(sizes: &[Size], web: &Web, gap: i32) -> (Vec<i32>, Vec<i32>, i32) {
    let mut heights = vec![0; web.layers.len()];
    for (size, item) in sizes.iter().zip(&web.items) {
        if let Some(height) = heights.get_mut(item.layer) {
            *height = size.height.max(*height);
        }
    }
    let mut top = 0;
    let mut tops = Vec::with_capacity(heights.len());
    for height in &heights {
        tops.push(top);
        top += height + gap;
    }
    (tops, heights, (top - gap).max(0))
}

struct Item {
    layer: usize,
    width: f64,
    is_box: bool,
}

/// The boxes, followed by the places where long edges pass a layer, with links between neighbouring layers only.
struct Web {
    items: Vec<Item>,
    layers: Vec<Vec<usize>>,
    above: Vec<Vec<usize>>,
    below: Vec<Vec<usize>>,
    /// `(box, layer)`: where the bundle of long edges that leave the box passes the layer.
    bundles: BTreeMap<(usize, usize), usize>,
}

impl Web {
    fn new(sizes: &[Size], edges: &[(usize, usize)]) -> Self {
        let layer_of = layers(sizes.len(), edges);
        let item = |(size, &layer): (&Size, &usize)| Item { layer, width: f64::from(size.width), is_box: true };
        let items: Vec<Item> = sizes.iter().zip(&layer_of).map(item).collect();
        let count = layer_of.iter().max().map_or(0, |last| last + 1);
        let mut web = Self { items, layers: vec![Vec::new(); count], ..Self::empty() };
        let mut furthest: Vec<usize> = layer_of.clone();
        for &(from, to) in edges {
            furthest[from] = furthest[from].max(layer_of[to]);
        }
        let passed: usize = furthest.iter().zip(&layer_of).map(|(far, own)| far.saturating_sub(own + 1)).sum();
        let mut links: Vec<(usize, usize)> = Vec::new();
        if passed + sizes.len() <= MAX_ITEMS {
            for (from, (&far, &own)) in furthest.iter().zip(&layer_of).enumerate() {
                let mut last = from;
                for layer in own + 1..far {
                    let at = web.items.len();
                    web.items.push(Item { layer, width: LANE, is_box: false });
                    web.bundles.insert((from, layer), at);
                    links.push((last, at));
                    last = at;
                }
            }
        }
        for &(from, to) in edges {
            let last = layer_of[to].checked_sub(1).and_then(|layer| web.bundles.get(&(from, layer)));
            let last = last.copied().unwrap_or(from);
            // Without bundles a long edge is no link: it takes no part in placing.
            if web.items[last].layer + 1 == layer_of[to] {
                links.push((last, to));
            }
        }
        web.above = vec![Vec::new(); web.items.len()];
        web.below = vec![Vec::new(); web.items.len()];
        for (from, to) in links {
            web.below[from].push(to);
            web.above[to].push(from);
        }
        for (at, item) in web.items.iter().enumerate() {
            web.layers[item.layer].push(at);
        }
        web
    }

    fn empty() -> Self {
        Self { items: Vec::new(), layers: Vec::new(), above: Vec::new(), below: Vec::new(), bundles: BTreeMap::new() }
    }

    fn between(&self, from: usize, to: usize) -> Vec<usize> {
        let layers = self.items[from].layer + 1..self.items[to].layer;
        layers.filter_map(|layer| self.bundles.get(&(from, layer)).copied()).collect()
    }

    /// Orders each layer so that few links cross; of equally good orders that of the file.
    fn order(&mut self) {
        if self.items.len() > MAX_ITEMS {
            return;
        }
        let mut best = (self.crossings(), self.layers.clone());
        for sweep in 0..SWEEPS {
            if best.0 == 0 {
                break;
            }
            let is_down = sweep % 2 == 0;
            for step in 0..self.layers.len() {
                let at = if is_down { step } else { self.layers.len() - 1 - step };
                self.sort(at, is_down);
            }
            if self.items.len() <= MAX_SWAPPED {
                self.swap();
            }
            let crossings = self.crossings();
            if crossings < best.0 {
                best = (crossings, self.layers.clone());
            }
        }
        self.layers = best.1;
    }

    fn sort(&mut self, at: usize, is_down: bool) {
        let beside = if is_down { at.checked_sub(1) } else { Some(at + 1) };
        let Some(beside) = beside.and_then(|beside| self.layers.get(beside)) else { return };
        let place = self.positions(beside);
        let links = if is_down { &self.above } else { &self.below };
        let mut keyed: Vec<(f64, usize)> = Vec::new();
        for (own, &item) in self.layers[at].iter().enumerate() {
            let near = &links[item];
            let sum: usize = near.iter().map(|&other| place[other]).sum();
            keyed.push((if near.is_empty() { own as f64 } else { sum as f64 / near.len() as f64 }, item));
        }
        // Stable: equals keep their order.
        keyed.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        self.layers[at] = keyed.into_iter().map(|(_, item)| item).collect();
    }

    /// Swaps neighbours where that saves crossings.
    fn swap(&mut self) {
        for at in 0..self.layers.len() {
            let mut beside: Vec<usize> = vec![0; self.items.len()];
            for other in [at.checked_sub(1), Some(at + 1)].into_iter().flatten() {
                for (position, &item) in self.layers.get(other).into_iter().flatten().enumerate() {
                    beside[item] = position;
                }
            }
            for left in 0..self.layers[at].len().saturating_sub(1) {
                let (a, b) = (self.layers[at][left], self.layers[at][left + 1]);
                let crossed = |a: usize, b: usize| {
                    let pairs = |links: &[Vec<usize>]| -> usize {
                        links[a].iter().map(|&x| links[b].iter().filter(|&&y| beside[x] > beside[y]).count()).sum()
                    };
                    pairs(&self.above) + pairs(&self.below)
                };
                if crossed(b, a) < crossed(a, b) {
                    self.layers[at].swap(left, left + 1);
                }
            }
        }
    }

    fn positions(&self, layer: &[usize]) -> Vec<usize> {
        let mut place = vec![0; self.items.len()];
        for (position, &item) in layer.iter().enumerate() {
            place[item] = position;
        }
        place
    }

    fn crossings(&self) -> usize {
        let mut sum = 0;
        for pair in self.layers.windows(2) {
            let [upper, lower] = pair else { continue };
            let place = self.positions(lower);
            // How many ends seen so far lie right of each end: a Fenwick tree.
            let mut tree = vec![0_usize; lower.len() + 1];
            let mut seen = 0;
            for &item in upper {
                let mut ends: Vec<usize> = self.below[item].iter().map(|&end| place[end]).collect();
                ends.sort_unstable();
                for &end in &ends {
                    let mut at = end + 1;
                    let mut not_right = 0;
                    while at > 0 {
                        not_right += tree[at];
                        at &= at - 1;
                    }
                    sum += seen - not_right;
                }
                for end in ends {
                    let mut at = end + 1;
                    while at < tree.len() {
                        tree[at] += 1;
                        at += at & at.wrapping_neg();
                    }
                    seen += 1;
                }
            }
        }
        sum
    }

    /// The middle of each item: near its neighbours above and below, and clear of those beside it.
    fn across(&self, gap: f64) -> Vec<f64> {
        let mut xs = vec![0.0; self.items.len()];
        for layer in &self.layers {
            let want = vec![0.0; layer.len()];
            self.settle(layer, &want, gap, &mut xs);
        }
        for round in 0..ROUNDS {
            // Last of all both sides count, so that straight edges stay straight.
            let is_last = round + 2 >= ROUNDS;
            let is_down = round % 2 == 0;
            for step in 0..self.layers.len() {
                let at = if is_down { step } else { self.layers.len() - 1 - step };
                let layer = &self.layers[at];
                let wish = |item: usize| {
                    let above = self.above[item].iter().filter(|_| is_down || is_last);
                    let below = self.below[item].iter().filter(|_| !is_down || is_last);
                    let (mut sum, mut weights) = (0.0, 0.0);
                    for &other in above.chain(below) {
                        let weight = self.weight(item, other);
                        sum += weight * xs[other];
                        weights += weight;
                    }
                    if weights > 0.0 { sum / weights } else { xs[item] }
                };
                let want: Vec<f64> = layer.iter().map(|&item| wish(item)).collect();
                self.settle(layer, &want, gap, &mut xs);
            }
        }
        xs
    }

    /// How much a link wants to be straight: long edges most.
    fn weight(&self, a: usize, b: usize) -> f64 {
        match (self.items[a].is_box, self.items[b].is_box) {
            (true, true) => 1.0,
            (false, false) => 8.0,
            _ => 2.0,
        }
    }

    /// Puts a layer's items as near to where they want to be as their widths allow: isotonic regression by pooling
    /// neighbours that would overlap.
    fn settle(&self, layer: &[usize], want: &[f64], gap: f64, xs: &mut [f64]) {
        let mut pools: Vec<(f64, usize)> = Vec::new();
        let mut offsets = Vec::with_capacity(layer.len());
        let mut offset = 0.0;
        let mut before: Option<f64> = None;
        for (&item, want) in layer.iter().zip(want) {
            let width = self.items[item].width;
            offset += before.map_or(0.0, |before| (before + width) / 2.0 + gap);
            before = Some(width);
            offsets.push(offset);
            let mut pool = (want - offset, 1_usize);
            while let Some(&(mean, count)) = pools.last()
                && mean > pool.0
            {
                pools.pop();
                let both = count + pool.1;
                pool = ((mean * count as f64 + pool.0 * pool.1 as f64) / both as f64, both);
            }
            pools.push(pool);
        }
        let means = pools.iter().flat_map(|&(mean, count)| std::iter::repeat_n(mean, count));
        for ((&item, offset), mean) in layer.iter().zip(offsets).zip(means) {
            xs[item] = mean + offset;
        }
    }
}

/// The length of the longest path to each box.
fn layers(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut missing = vec![0_usize; count];
    for &(from, to) in edges {
        after[from].push(to);
        missing[to] += 1;
    }
    let mut layer = vec![0; count];
    let mut ready: Vec<usize> = (0..count).filter(|&at| missing[at] == 0).collect();
    let mut done = 0;
    while let Some(&at) = ready.get(done) {
        done += 1;
        for &next in &after[at] {
            layer[next] = layer[next].max(layer[at] + 1);
            missing[next] -= 1;
            if missing[next] == 0 {
                ready.push(next);
            }
        }
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOX: Size = Size { width: 100, height: 40 };
    const GAPS: Gaps = Gaps { across: 20, down: 30 };

    fn drawn(count: usize, edges: &[(usize, usize)]) -> Layout {
        lay_out(&vec![BOX; count], edges, GAPS)
    }

    fn assert_no_overlap(layout: &Layout) {
        for (at, a) in layout.places.iter().enumerate() {
            for b in &layout.places[at + 1..] {
                let apart = a.bottom <= b.top || b.bottom <= a.top || (a.x - b.x).abs() >= 100;
                assert!(apart, "{a:?} overlaps {b:?}");
            }
        }
    }

    #[test]
    fn a_chain_is_one_straight_column() {
        let layout = drawn(4, &[(0, 1), (1, 2), (2, 3)]);
        assert!(layout.places.iter().all(|place| place.x == 50));
        assert_eq!((layout.width, layout.height), (100, 4 * 40 + 3 * 30));
    }

    #[test]
    fn a_fork_is_centred_on_its_branches() {
        let layout = drawn(5, &[(0, 1), (0, 2), (0, 3), (1, 4), (2, 4), (3, 4)]);
        let xs: Vec<i32> = layout.places.iter().map(|place| place.x).collect();
        assert_eq!(xs, [170, 50, 170, 290, 170]);
        assert_no_overlap(&layout);
    }

    #[test]
    fn crossings_that_need_not_be_are_gone() {
        // Drawn in the order of the file, the two chains cross.
        let web = |order: bool| {
            let mut web = Web::new(&[BOX; 6], &[(0, 1), (0, 2), (1, 4), (2, 3), (3, 5), (4, 5)]);
            if order {
                web.order();
            }
            web.crossings()
        };
        assert_eq!((web(false), web(true)), (1, 0));
    }

    #[test]
    fn a_long_edge_goes_round_the_boxes_between() {
        let layout = drawn(4, &[(0, 1), (1, 2), (2, 3), (0, 3)]);
        let long = layout.routes.iter().find(|route| (route.from, route.to) == (0, 3)).expect("the edge is drawn");
        assert_eq!(long.via.len(), 2);
        for via in &long.via {
            assert!(
                layout.places.iter().all(|place| place.top != via.top || (place.x - via.x).abs() > 50),
                "{layout:?}"
            );
        }
    }

    #[test]
    fn five_hundred_boxes_with_all_edges_between_two_halves_are_placed() {
        let edges: Vec<(usize, usize)> = (0..250).flat_map(|a| (250..500).map(move |b| (a, b))).collect();
        let layout = drawn(500, &edges);
        assert_eq!(layout.routes.len(), 62_500);
        assert_no_overlap(&layout);
    }

    #[test]
    fn five_hundred_boxes_with_long_edges_are_placed() {
        // A chain beside which everything else runs from its start to its end.
        let mut edges: Vec<(usize, usize)> = (0..249).map(|at| (at, at + 1)).collect();
        edges.extend((250..500).flat_map(|at| [(0, at), (at, 249)]));
        assert_no_overlap(&drawn(500, &edges));
    }
}
