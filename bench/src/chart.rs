//! Charts for the page: lines through measured points, as SVG.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::report::thousands;

/// In pixels; the legend beneath takes a row for each line.
const WIDTH: u32 = 720;
const HEIGHT: u32 = 420;
const ROW: u32 = 18;
/// Colours that people who see colours differently can tell apart (Okabe and Ito, 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// A chart; upwards its scale is logarithmic.
#[derive(Debug)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What is across, in which unit, and how it is spaced.
    pub across: (&'static str, Scale),
    /// What is upwards, in which unit.
    pub upwards: &'static str,
    /// The lines.
    pub lines: Vec<Line>,
}

/// How values are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As they are, from 0.
    Linear,
    /// By their logarithm.
    Logarithmic,
}

/// Points that belong together.
#[derive(Debug)]
pub struct Line {
    /// What they are.
    pub name: String,
    /// Where they are, across and upwards, from left to right.
    pub points: Vec<(f64, f64)>,
}

impl Chart {
    /// Draws it into the file `path`; nothing where there are no points.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn draw(&self, path: &Path) -> anyhow::Result<()> {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let (Some(across), Some(upwards)) = (
            range(points().map(|point| point.0)),
            range(points().map(|point| point.1)),
        ) else {
            return Ok(());
        };
        let rows = u32::try_from(self.lines.len())?;
        let size = (WIDTH, HEIGHT + ROW * (rows + 1));
        let root = SVGBackend::new(path, size).into_drawing_area();
        match self.across.1 {
            Scale::Linear => self.draw_on(&root, 0.0..across.end, upwards),
            Scale::Logarithmic => self.draw_on(&root, across.log_scale(), upwards),
        }
        .and_then(|()| Ok(root.present()?))
        .map_err(|error| anyhow!("{error}"))
        .with_context(|| format!("{} can't be drawn", path.display()))
    }

    fn draw_on<'a, X>(
        &self,
        root: &DrawingArea<SVGBackend<'a>, Shift>,
        across: X,
        upwards: Range<f64>,
    ) -> Result<(), Box<dyn std::error::Error + 'a>>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        root.fill(&WHITE)?;
        let (plot, legend) = root.split_vertically(HEIGHT);
        let mut chart = ChartBuilder::on(&plot)
            .caption(&self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(across, upwards.log_scale())?;
        chart
            .configure_mesh()
            .x_desc(self.across.0)
            .y_desc(self.upwards)
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .light_line_style(BLACK.mix(0.05))
            .draw()?;
        let colours = COLOURS.iter().cycle();
        for ((line, colour), middle) in self.lines.iter().zip(colours).zip(rows()) {
            let style = colour.stroke_width(2);
            let points = line.points.iter().copied();
            chart.draw_series(LineSeries::new(points, style).point_size(3))?;
            legend.draw(&PathElement::new([(64, middle), (88, middle)], style))?;
            let name = Text::new(line.name.as_str(), (96, middle - 6), ("sans-serif", 13));
            legend.draw(&name)?;
        }
        Ok(())
    }
}

/// The middle of each row of the legend.
fn rows() -> impl Iterator<Item = i32> {
    (9..).step_by(ROW as usize)
}

/// From the power of ten below the least, which an axis labels, to a little above the most; `None` of nothing.
fn range(values: impl Iterator<Item = f64> + Clone) -> Option<Range<f64>> {
    let least = values.clone().reduce(f64::min)?;
    let most = values.reduce(f64::max)?;
    Some(10_f64.powf(least.log10().floor())..most * 1.3)
}

/// A value as short as its size allows.
fn short(value: f64) -> String {
    match value {
        10.0.. => thousands(value),
        1.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn drawn(scale: Scale, points: Vec<(f64, f64)>) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("chart.svg");
        let chart = Chart {
            title: "How it went".to_owned(),
            across: ("a second", scale),
            upwards: "ms",
            lines: vec![Line {
                name: "p50".to_owned(),
                points,
            }],
        };
        chart.draw(&path).unwrap();
        std::fs::read_to_string(path).ok()
    }

    #[test]
    fn a_chart_shows_its_points_and_says_what_they_are() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let svg = drawn(scale, vec![(10.0, 1.0), (1_000.0, 30.0)]).unwrap();
            for text in ["How it went", "a second", "ms", "p50"] {
                assert!(svg.contains(text), "{text}: {svg}");
            }
            assert_eq!(svg.matches("<circle").count(), 2);
        }
    }

    #[test]
    fn nothing_is_not_drawn() {
        assert_eq!(drawn(Scale::Linear, Vec::new()), None);
    }

    #[test]
    fn an_axis_begins_at_a_power_of_ten() {
        assert_eq!(range([250.0, 30.0].into_iter()), Some(10.0..325.0));
        assert_eq!(range(std::iter::empty()), None);
    }

    #[test]
    fn labels_are_short() {
        let labels = [0.05, 2.5, 40.0, 25_000.0].map(short);
        assert_eq!(labels, ["0.05", "2.5", "40", "25,000"]);
    }
}
