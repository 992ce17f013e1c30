# NEBULA: a negative binomial mixed model per gene, of cells.

arguments <- commandArgs(trailingOnly = FALSE)
source(file.path(dirname(sub("--file=", "", grep("--file=", arguments, value = TRUE))), "measure.R"))
folder <- commandArgs(trailingOnly = TRUE)[1]
suppressPackageStartupMessages(library(nebula))

design <- read_array(folder, "design")
counts <- t(read_array(folder, "genes"))
predictors <- model.matrix(~ diagnosis, data.frame(diagnosis = design[, 1]))

measured(result <- nebula(counts, design[, 2], pred = predictors, offset = design[, 3], ncore = 1))
