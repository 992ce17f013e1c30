# lme4: two maximum-likelihood fits per gene, full and without diagnosis.

arguments <- commandArgs(trailingOnly = FALSE)
source(file.path(dirname(sub("--file=", "", grep("--file=", arguments, value = TRUE))), "measure.R"))
folder <- commandArgs(trailingOnly = TRUE)[1]
suppressPackageStartupMessages(library(lme4))

design <- read_array(folder, "design")
genes <- read_array(folder, "genes")
cells <- data.frame(x = design[, 1], d = design[, 2], donor = factor(design[, 3]))

fit <- function(y) {
  cells$y <- y
  full <- lmer(y ~ x + d + (1 | donor), cells, REML = FALSE)
  null <- lmer(y ~ x + (1 | donor), cells, REML = FALSE)
  c(logLik(full), logLik(null))
}

suppressMessages(fit(genes[, 1]))
measured(values <- suppressMessages(t(apply(genes, 2, fit))))
write.table(format(values, digits = 17), file.path(folder, "values"), row.names = FALSE, col.names = FALSE, quote = FALSE)
