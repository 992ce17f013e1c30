# edgeR's quasi-likelihood F test on sums of counts per donor.

arguments <- commandArgs(trailingOnly = FALSE)
source(file.path(dirname(sub("--file=", "", grep("--file=", arguments, value = TRUE))), "measure.R"))
folder <- commandArgs(trailingOnly = TRUE)[1]
suppressPackageStartupMessages(library(edgeR))

diagnosis <- read_array(folder, "design")[, 1]
counts <- t(read_array(folder, "genes"))

measured({
  genes <- DGEList(counts)
  design <- model.matrix(~ diagnosis)
  genes <- genes[filterByExpr(genes, design), , keep.lib.sizes = FALSE]
  genes <- calcNormFactors(genes)
  genes <- estimateDisp(genes, design)
  result <- glmQLFTest(glmQLFit(genes, design), coef = 2)
})
